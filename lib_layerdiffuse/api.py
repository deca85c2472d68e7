"""The Python API: `load` a model once, `generate` pictures; the same names as the command line.

from lib_layerdiffuse.api import generate
for picture in generate("a red apple", count=4, seed=1):
    picture.save(f"apple-{picture.seed}.png")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from .core.errors import InputError
from .files.names import slug
from .form.ranges import checked_path, checked_text, shown
from .sets.save_options import DEFAULT, SaveOptions
from .standalone.extras import require
from .standalone.pictures import Picture, Pictures, Watchers
from .standalone.settings import GenerateSettings, ModelSettings

if TYPE_CHECKING:
    from PIL import Image

    from .diagnosis.findings import Finding
    from .sets.formats import Saved
    from .sets.kept_scene import KeptScene
    from .sets.layer_set import LayerSet
    from .sets.scene import Scene
    from .standalone.diffusers_host import DiffusersHost
    from .standalone.scenes import ScenePictures

__all__ = [
    "GenerateSettings",
    "ModelSettings",
    "Picture",
    "Pictures",
    "SaveOptions",
    "cut",
    "diagnose",
    "generate",
    "load",
    "read_layers",
    "save_layers",
    "scene",
    "words",
]

Model = ModelSettings | str | os.PathLike[str] | None


def load(model: Model = None, **choices: Any) -> DiffusersHost:
    """A loaded model for `generate(..., pipeline=...)`: settings, or a checkpoint's path; none is the demo model.

    `choices` are fields of ModelSettings.
    """
    settings = _chosen(_model_settings(model), choices).validated()
    require_standalone()
    from .standalone.loading import load_host

    return load_host(settings)


def generate(
    prompt: str | Sequence[str] | GenerateSettings,
    *,
    pipeline: DiffusersHost | None = None,
    model: Model = None,
    progress: Callable[[float, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_picture: Callable[[Picture], object] | None = None,
    **choices: Any,
) -> Pictures:
    """Pictures for a prompt, several prompts or ready settings; `choices` are fields of GenerateSettings.

    `progress(fraction in [0,1], text)` is called after every step, `on_picture` with each picture that is done; when
    `should_stop()` turns true, the finished pictures are returned and `stopped` is set.
    """
    settings = prompt if isinstance(prompt, GenerateSettings) else GenerateSettings(prompt)
    settings, notes = _chosen(settings, choices).validated()
    watchers = Watchers(*_callables(progress=progress, should_stop=should_stop, on_picture=on_picture))
    chosen = _model_settings(model).validated()
    host = _checked_host(pipeline) if pipeline is not None else _load_for(settings, chosen, watchers)
    pictures = host.run(settings, watchers)
    unused = ["the settings of the model are not used: a loaded one was given"] if pipeline and model else []
    pictures.notes[:0] = [*notes, *(unused or ([] if pipeline else chosen.notes()))]
    return pictures


def _load_for(settings: GenerateSettings, model: ModelSettings, watchers: Watchers) -> DiffusersHost:
    """The model, after checks that its file's header allows: the wrong base is told in a second, not in a minute."""
    require_standalone()
    from .standalone.course import checked_course
    from .standalone.loading import base_of, load_host

    watchers.report(0.0, "loading the model")
    checked_course(settings, base_of(model))
    return load_host(model)


def scene(
    source: Scene | KeptScene | str | os.PathLike[str] | Mapping[str, Any],
    *,
    pipeline: DiffusersHost | None = None,
    model: Model = None,
    progress: Callable[[float, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_layer: Callable[[LayerSet], object] | None = None,
    **choices: Any,
) -> ScenePictures:
    """A background and layers upon it, by a scene file or what one holds; each is painted on the composite so far.

    `choices` are how to paint: steps, guidance, sampler, negative_prompt, passes and so on. What is given back has
    `layers`, a LayerSet, and `image`, all of them on the canvas; `on_layer` is given those so far after each. A
    KeptScene keeps finished layers in a folder and goes on from them; `remove` them when all are saved. InputError for
    a scene that is none, OutputError for a folder that holds something else.
    """
    from .sets.kept_scene import KeptScene
    from .sets.scene import Scene, check_files, read_scene
    from .standalone.scenes import CHOICES, paint_scene_with

    if not isinstance(source, (Scene, KeptScene, str, os.PathLike, Mapping)):
        raise InputError(f"scene {shown(source)}", "a scene file, or a mapping", "name the file")
    read = source if isinstance(source, (Scene, KeptScene)) else read_scene(source)
    check_files(read.scene if isinstance(read, KeptScene) else read)
    unknown = [name for name in choices if name not in CHOICES]
    if unknown:
        raise InputError(f"setting {', '.join(unknown)}", f"one of {', '.join(CHOICES)}", "correct the name")
    GenerateSettings("a scene", **choices).validated()
    watchers = Watchers(*_callables(progress=progress, should_stop=should_stop))
    if pipeline is None:
        watchers.report(0.0, "loading the model")
    host = _checked_host(pipeline) if pipeline is not None else load(model)
    (told,) = _callables(on_layer=on_layer)
    return paint_scene_with(host, read, choices, watchers, told and (lambda stack: told(stack.state.layer_set())))


def diagnose(
    prompt: str | Sequence[str] | GenerateSettings,
    *,
    pipeline: DiffusersHost | None = None,
    model: Model = None,
    progress: Callable[[float, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    **choices: Any,
) -> list[Finding]:
    """Find out why a job gives no alpha: it is run as it was, shorter, and with one thing changed at a time.

    Each finding has a `name`, `figures` and `verdicts` of its pictures (None: fine), how many `failed`, and `pictures`.
    """
    settings = prompt if isinstance(prompt, GenerateSettings) else GenerateSettings(prompt)
    settings, _notes = _chosen(settings, choices).validated()
    watchers = Watchers(*_callables(progress=progress, should_stop=should_stop))
    chosen = _model_settings(model).validated()
    host = _checked_host(pipeline) if pipeline is not None else _load_for(settings, chosen, watchers)
    from .standalone.find_out import find_out

    return find_out(host, settings, watchers)


def cut(picture: Any, alpha: Any) -> Image.Image:
    """An opaque picture cut out by the alpha of another one that shows the same shape, RGBA at the first one's size.

    Both are PIL images or paths. The background is taken out of soft edges. InputError for other proportions.
    """
    from PIL import Image

    from .core.picture import cutting
    from .core.picture.hidden import with_hidden_colours
    from .unet.images import open_image

    colours, shape = open_image(picture, "picture"), open_image(alpha, "alpha")[..., 3]
    return with_hidden_colours(Image.fromarray(cutting.cut(colours[..., :3], cutting.fitted(shape, colours.shape[:2]))))


def words(model: Model = None) -> dict[str, list[str]]:
    """The names of the things that the demo model was trained on, by group."""
    from .standalone.vocabulary import read_vocabulary

    return read_vocabulary(_model_settings(model).validated().demo)


def read_layers(source: str | os.PathLike[str] | bytes) -> LayerSet:
    """The layers of a PSD, OpenRaster or ZIP file, of its bytes, or of a folder that was saved as WebP files."""
    from .sets.reading import read_set

    if isinstance(source, bytes):
        return read_set(source)
    return read_set(os.fspath(checked_path("source", source, optional=False)))


def save_layers(
    layers: LayerSet, folder: str | os.PathLike[str], name: str = "layers", kind: str = DEFAULT, **choices: Any
) -> Saved:
    """Write a set of layers into a folder as `name`, or `name_2` where that is taken; `kind` is psd, ora, zip, webp ...

    `choices` are fields of SaveOptions. What is given back has the path and notes.
    """
    from .sets.formats import save_set

    target, stem = checked_path("folder", folder, optional=False), slug(checked_text("name", name))
    return save_set(_checked_layers(layers), target, stem, kind, _chosen(SaveOptions(), choices))


def _checked_layers(layers: Any) -> LayerSet:
    from .sets.layer_set import LayerSet

    if not isinstance(layers, LayerSet):
        raise InputError(f"layers {shown(layers)}", "a LayerSet", "make one, such as by pictures.layer_sets()")
    return layers


def require_standalone() -> None:
    """MissingExtraError with the line to type when a module of the standalone extra is not installed."""
    require("standalone")


def _model_settings(model: Model) -> ModelSettings:
    """Settings of whatever a caller names a model by."""
    if model is None or isinstance(model, ModelSettings):
        return model or ModelSettings()
    if isinstance(model, (str, os.PathLike)):
        return ModelSettings(checkpoint=os.fspath(model))
    raise InputError(f"model {shown(model)}", "ModelSettings, or a checkpoint's path", "name one of them")


def _checked_host(pipeline: Any) -> DiffusersHost:
    if not callable(getattr(pipeline, "run", None)):
        raise InputError(f"pipeline {shown(pipeline)}", "what `load` gave", "load a model first, and pass it on")
    return pipeline


def _callables(**given: Any) -> list[Callable | None]:
    for name, value in given.items():
        if value is not None and not callable(value):
            raise InputError(f"{name} {shown(value)}", "a function", f"pass a function as {name}, or leave it out")
    return list(given.values())


def _chosen(settings: Any, choices: dict[str, Any]) -> Any:
    known = [field.name for field in fields(settings)]
    unknown = [name for name in choices if name not in known]
    if unknown:
        raise InputError(f"setting {', '.join(unknown)}", f"one of {', '.join(known)}", "correct the name")
    return replace(settings, **choices)
