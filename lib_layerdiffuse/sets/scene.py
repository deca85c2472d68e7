"""Scene files: a background and a list of things in YAML or JSON, which are painted one upon the other."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.errors import InputError, MissingExtraError
from ..core.picture.sizes import MOST_SIDE
from ..unet.images import open_image
from .layer_set import MOST_LAYERS
from .stack import SCALES, WEIGHTS, Painter, PaintRequest, Stack, StackLayer, Stopped

MOST_BYTES = 2**20
LEAST_SIDE = 64
SCENE_KEYS = ("width", "height", "size", "seed", "background", "layers")
LAYER_KEYS = ("prompt", "file", "name", "seed", "weight", "left", "top", "scale", "opacity", "visible")
BACKGROUND_KEYS = ("prompt", "file", "name", "seed")
EXAMPLE = "background: a beach, and below layers: a list of prompts"


@dataclass(frozen=True)
class SceneLayer:
    """A layer of a scene: from a prompt or from the file of a picture; `place` is the rest of what is said of it."""

    prompt: str = ""
    file: Path | None = None
    seed: int | None = None
    weight: float = 1.0
    place: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """What a scene file says; sizes of None are the model's own, or those of the background's file."""

    layers: tuple[SceneLayer, ...] = ()
    background: SceneLayer | None = None
    width: int | None = None
    height: int | None = None
    seed: int = -1

    def stack(self, side: int) -> Stack:
        """An empty stack of the scene's size; `side` is that of the model's pictures."""
        known = self.background.file if self.background else None
        size = picture_of(known).size if known is not None and self.width is None else (side, side)
        return Stack.of_size(self.width or size[0], self.height or size[1])


def read_scene(source: str | PathLike[str] | Mapping[str, Any]) -> Scene:
    """The scene of a file, or of what one holds; InputError says what is wrong, and where."""
    if isinstance(source, Mapping):
        return parse_scene(source, Path())
    path = Path(source)
    return parse_scene(parsed(path.suffix.lower(), text_of(path), path.name), path.parent)


def text_of(path: Path) -> str:
    """The text of a scene file. InputError where it cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} of {path.stat().st_size} bytes", f"at most {MOST_BYTES}", "choose a scene file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = f"{path}, which cannot be read ({error})"
        raise InputError(got, "a scene file, JSON or YAML in UTF-8", "correct the path or the file") from error


def parsed(suffix: str, text: str, name: str) -> Any:
    """What a text says: JSON by its ending, else YAML. InputError for what is neither."""
    try:
        return json.loads(text) if suffix == ".json" else yaml_module().safe_load(text)
    except MissingExtraError:
        raise
    except Exception as error:  # two parsers, which fail in many ways
        got = f"{name}, which is no {'JSON' if suffix == '.json' else 'YAML'} ({' '.join(str(error).split())[:300]})"
        raise InputError(got, EXAMPLE, "correct the file") from error


def yaml_module() -> Any:
    """PyYAML, where it is installed. MissingExtraError where it is not."""
    try:
        return importlib.import_module("yaml")
    except ImportError as error:
        what_to_do = "write the scene as JSON, in a file that ends in .json, or type: pip install PyYAML"
        raise MissingExtraError("a scene in YAML without PyYAML", "PyYAML", what_to_do) from error


def parse_scene(values: Any, folder: Path) -> Scene:
    """The scene that a mapping describes; files are looked for from `folder` on. InputError for what is none."""
    checked = checked_keys("the scene", values, SCENE_KEYS)
    rows = checked.get("layers") or []
    if not isinstance(rows, list) or len(rows) > MOST_LAYERS:
        raise InputError(
            "layers that are no list", f"a list of at most {MOST_LAYERS} layers", "begin each with a hyphen"
        )
    layers = tuple(layer_of(f"layer {number}", row, LAYER_KEYS, folder) for number, row in enumerate(rows, 1))
    ground = checked.get("background")
    background = None if ground is None else layer_of("the background", ground, BACKGROUND_KEYS, folder)
    if background is None and not layers:
        raise InputError("a scene without background and layers", "one of them", EXAMPLE)
    seed = checked.get("seed", -1)
    return Scene(
        layers, background, *size_of(checked), number_of("the scene", "seed", seed, (-1, 2**32 - 1), whole=True)
    )


def checked_keys(what: str, values: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
    """A mapping of known keys; InputError names the nearest known one."""
    if not isinstance(values, Mapping):
        raise InputError(f"{what} that is {type(values).__name__}", f"a mapping of {', '.join(known)}", EXAMPLE)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            what_to_do = f"did you mean {near[0]}?" if near else "leave it out, or correct it"
            raise InputError(f"the unknown key {str(key)[:60]!r} in {what}", f"one of {', '.join(known)}", what_to_do)
    return values


def size_of(values: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Width and height: of their own, or of size: 512x768, or size: 512."""
    size = values.get("size")
    sides = [values.get("width"), values.get("height")]
    if size is not None:
        parts = str(size).lower().replace("×", "x").split("x")
        sides = [int(part) if part.strip().isdecimal() else 0 for part in (parts[0], parts[-1])]
        sides = sides if len(parts) <= 2 else [0, 0]
    limits = (LEAST_SIDE, MOST_SIDE)
    names = ("width", "height")
    width, height = (
        None if side is None else number_of("the scene", name, side, limits, whole=True)
        for name, side in zip(names, sides, strict=True)
    )
    return width, height


def layer_of(what: str, row: Any, known: tuple[str, ...], folder: Path) -> SceneLayer:
    """A layer from a prompt alone, or from a mapping. InputError for anything else."""
    values = checked_keys(what, {"prompt": row} if isinstance(row, str) else row, known)
    prompt, file = values.get("prompt"), values.get("file")
    if (prompt is None) == (file is None):
        got = f"{what} with {'neither prompt nor file' if prompt is None else 'both prompt and file'}"
        raise InputError(got, "one of them", "say what is painted, or name a picture")
    for name in ("prompt", "file", "name"):
        value = values.get(name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise InputError(f"{name} {value!r:.60} of {what}", "a text", f"correct the {name}")
    numbers = {name: number_of(what, name, values[name], *RULES[name]) for name in RULES if name in values}
    place = {name: numbers.pop(name) for name in ("left", "top", "scale", "opacity") if name in numbers}
    place |= {name: values[name] for name in ("name", "visible") if name in values}
    if not isinstance(place.get("visible", True), bool):
        raise InputError(f"visible {place['visible']!r:.60} of {what}", "true or false", "correct it")
    return SceneLayer(prompt or "", None if file is None else folder / file, place=place, **numbers)


SEEDS, SHIFTS = (-1, 2**32 - 1), (-MOST_SIDE, MOST_SIDE)
RULES: dict[str, tuple[tuple[float, float], bool]] = {
    "seed": (SEEDS, True),
    "weight": (WEIGHTS, False),
    "left": (SHIFTS, True),
    "top": (SHIFTS, True),
    "scale": (SCALES, False),
    "opacity": ((0, 1), False),
}


def number_of(what: str, name: str, value: Any, limits: tuple[float, float], whole: bool = False) -> Any:
    """A number within limits. InputError for any other."""
    low, high = limits
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        expected = f"a {'whole ' if whole else ''}number from {low:g} to {high:g}"
        raise InputError(f"{name} {value!r:.60} of {what}", expected, f"correct the {name}")
    return value


def picture_of(path: Path) -> Image.Image:
    """RGBA of a picture's file."""
    return Image.fromarray(open_image(path, "file"))


@dataclass
class PaintedScene:
    """A scene as far as it was painted; `stopped` where somebody wanted no more."""

    stack: Stack
    stopped: bool = False


def rows_of(scene: Scene) -> list[SceneLayer]:
    """What is painted, one after the other."""
    return [*([scene.background] if scene.background else []), *scene.layers]


def paint_scene(
    scene: Scene,
    painter: Painter,
    side: int,
    on_layer: Callable[[Stack], object] | None = None,
    done: Sequence[StackLayer] = (),
) -> PaintedScene:
    """Paints all layers, each on the composite of those before it at their places; what is done stays when stopped.

    `on_layer` is given the stack when a layer was added. `done` are the first layers, where they are there already.
    """
    made = PaintedScene(scene.stack(side))
    for layer in done:
        made.stack.change(made.stack.state.put(replace(layer, key=made.stack.new_key())))
    for number, row in enumerate(rows_of(scene)):
        if number < len(done):
            continue
        try:
            added(made.stack, row, row is scene.background, seed_of(scene, row, number), painter)
        except Stopped:
            made.stopped = True
            break
        if on_layer is not None:
            on_layer(made.stack)
    return made


def seed_of(scene: Scene, row: SceneLayer, number: int) -> int:
    """A layer's own seed, else the scene's counted on, else none that is known."""
    if row.seed is not None and row.seed >= 0:
        return row.seed
    return -1 if scene.seed < 0 else (scene.seed + number) % 2**32


def added(stack: Stack, row: SceneLayer, is_background: bool, seed: int, painter: Painter) -> StackLayer:
    """The layer of a row, at its place."""
    if row.file is not None:
        picture, title = picture_of(row.file), row.file.stem
        layer = stack.set_background(picture, title) if is_background else stack.add_picture(picture, title)
    else:
        layer = stack.paint(painter, request_of(stack, row, is_background, seed))
    return stack.update(layer.key, **row.place) if row.place else layer


def request_of(stack: Stack, row: SceneLayer, is_background: bool, seed: int) -> PaintRequest:
    """What a row asks a painter for."""
    if is_background:
        return stack.request_background(row.prompt, seed)
    return stack.request_layer(row.prompt, seed, row.weight)


def check_files(scene: Scene) -> None:
    """InputError for a picture that cannot be used, before anything is painted."""
    for row in filter(None, (scene.background, *scene.layers)):
        if row.file is not None:
            picture_of(row.file)
