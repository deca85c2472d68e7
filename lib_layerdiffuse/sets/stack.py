"""A stack: a background, then layer by layer, each painted on the composite so far; with undo in bounded memory.

Nothing here paints: a request says what is wanted, whoever has a model answers it with a picture.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from ..core.errors import InputError
from ..core.methods import BACKGROUND, FOREGROUND
from ..core.picture.sizes import MOST_SIDE
from .layer_set import MOST_LAYERS, MOST_PIXELS, PLAIN, Layer, LayerSet, as_rgba
from .stack_pictures import STEP, filled, rounded_up, scaled, title_of

HISTORY_BYTES, HISTORY_STEPS = 2**29, 200  # pictures of all remembered states, each counted once
SEEDS = 2**31  # drawn ones lie below
SCALES = (0.02, 8.0)
WEIGHTS = (0.0, 2.0)


@dataclass(frozen=True)
class StackLayer:
    """A layer with its picture as it was made: RGBA, never changed, shared by all states that show it.

    `left` and `top` are of the scaled picture; `weight` and `seed` are what it was painted with.
    """

    key: int
    name: str
    picture: Image.Image = field(repr=False)
    left: int = 0
    top: int = 0
    scale: float = 1.0
    opacity: float = 1.0
    visible: bool = True
    role: str = PLAIN
    prompt: str = ""
    seed: int | None = None
    weight: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "picture", as_rgba(self.picture))
        for name, (low, high) in (("scale", SCALES), ("weight", WEIGHTS)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise InputError(f"{name} {value!r:.60}", f"a number from {low:g} to {high:g}", f"correct the {name}")
        # the rest is checked where all layers are
        Layer(self.name, self.picture, self.left, self.top, **{name: getattr(self, name) for name in PASSED_ON})
        for side in self.size:
            if side > MOST_SIDE:
                raise InputError(f"a layer scaled to {side} pixels", f"at most {MOST_SIDE}", "choose a smaller scale")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the canvas."""
        width, height = (max(1, round(side * self.scale)) for side in self.picture.size)
        return width, height

    @property
    def middle(self) -> tuple[float, float]:
        """The middle on the canvas."""
        return self.left + self.size[0] / 2, self.top + self.size[1] / 2

    def laid(self) -> Layer:
        """The layer of a set: the picture scaled, colour weighted by alpha."""
        picture = self.picture if self.size == self.picture.size else scaled(self.picture, self.size)
        return Layer(self.name, picture, self.left, self.top, **{name: getattr(self, name) for name in PASSED_ON})

    def with_middle(self, x: float, y: float) -> StackLayer:
        """The same moved, so that its middle is there."""
        return replace(self, left=round(x - self.size[0] / 2), top=round(y - self.size[1] / 2))


PASSED_ON = ("opacity", "visible", "role", "prompt", "seed")


@dataclass(frozen=True)
class StackState:
    """A stack at one moment: canvas and layers, bottom first."""

    width: int
    height: int
    layers: tuple[StackLayer, ...] = ()

    def __post_init__(self):
        LayerSet(self.width, self.height)
        pixels = sum(layer.size[0] * layer.size[1] for layer in self.layers)
        if len(self.layers) > MOST_LAYERS or pixels > MOST_PIXELS:
            got = f"{len(self.layers)} layers of {pixels} pixels in all"
            raise InputError(got, f"at most {MOST_LAYERS} layers of {MOST_PIXELS}", "delete some, or make them smaller")

    @classmethod
    def of_set(cls, layer_set: LayerSet) -> StackState:
        """The layers of a set, as one can go on with them."""
        names = ("name", "picture", "left", "top", *PASSED_ON)
        rows = [{name: getattr(layer, name) for name in names} for layer in layer_set]
        layers = (StackLayer(key, **row) for key, row in enumerate(rows, 1))
        return cls(layer_set.width, layer_set.height, tuple(layers))

    def place_of(self, key: int | None) -> int | None:
        """Where in the order a layer is; None where it is not."""
        return next((place for place, layer in enumerate(self.layers) if layer.key == key), None)

    def found(self, key: int | None) -> int:
        """Where in the order a layer is; InputError where it is gone."""
        place = self.place_of(key)
        if place is None:
            raise InputError("a layer that is not there", "one of the stack", "choose a layer in the list")
        return place

    def layer(self, key: int | None) -> StackLayer:
        """The layer of a key; InputError where it is gone."""
        return self.layers[self.found(key)]

    @property
    def background(self) -> StackLayer | None:
        """The background: the lowest layer, where it has that role."""
        return self.layers[0] if self.layers and self.layers[0].role == BACKGROUND else None

    def layer_set(self, below: int | None = None) -> LayerSet:
        """The layers as a set; of those below a place only."""
        return LayerSet(self.width, self.height, tuple(layer.laid() for layer in self.layers[:below]))

    def composite(self, below: int | None = None) -> Image.Image:
        """All visible layers, or those below a place, on the canvas: RGBA."""
        seen = [layer.laid() for layer in self.layers[:below] if layer.visible]
        return LayerSet(self.width, self.height, tuple(seen)).composite()

    def put(self, layer: StackLayer, place: int | None = None) -> StackState:
        """With a layer at a place, on top for None."""
        layers = list(self.layers)
        layers.insert(len(layers) if place is None else place, layer)
        return replace(self, layers=tuple(layers))

    def with_layer(self, layer: StackLayer) -> StackState:
        """With this layer in the place of the one of its key."""
        self.layer(layer.key)
        return replace(self, layers=tuple(layer if each.key == layer.key else each for each in self.layers))

    def without(self, key: int) -> StackState:
        """Without a layer."""
        self.layer(key)
        return replace(self, layers=tuple(each for each in self.layers if each.key != key))


@dataclass(frozen=True)
class PaintRequest:
    """What shall be painted: on `background` (RGBA of width x height), or a background, or a thing on nothing.

    Width and height are multiples of 8, at most 7 pixels more than the canvas: the answer is cut to it.
    """

    prompt: str
    seed: int
    weight: float
    width: int
    height: int
    role: str = FOREGROUND
    background: Image.Image | None = field(default=None, repr=False)
    key: int | None = None  # of the layer to paint again

    @property
    def title(self) -> str:
        """What a layer of it is called."""
        return title_of(self.prompt, self.role)


class Stopped(Exception):
    """Somebody asked a painter to stop: there is no picture, and nothing went wrong."""


Painter = Callable[[PaintRequest], Image.Image]


class Stack:
    """A stack that is worked on: every operation makes a new state, and the former ones can be had again."""

    def __init__(self, state: StackState, history_bytes: int = HISTORY_BYTES):
        self.state, self.history_bytes = state, history_bytes
        self.lock = threading.RLock()
        self._undo: list[StackState] = []
        self._redo: list[StackState] = []
        self._last_key = max((layer.key for layer in state.layers), default=0)

    @classmethod
    def of_size(cls, width: int, height: int) -> Stack:
        """An empty stack."""
        return cls(StackState(width, height))

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def undo(self) -> bool:
        """Back to the state before the last operation; whether there was one."""
        return self._go(self._undo, self._redo)

    def redo(self) -> bool:
        """Forward again; whether there was something undone."""
        return self._go(self._redo, self._undo)

    def _go(self, source: list[StackState], target: list[StackState]) -> bool:
        with self.lock:
            if not source:
                return False
            target.append(self.state)
            self.state = source.pop()
            return True

    def change(self, state: StackState) -> None:
        """The next state; what can be redone is gone, and the oldest states where memory or steps run out."""
        with self.lock:
            if state == self.state:
                return
            self._undo.append(self.state)
            self._redo.clear()
            self.state = state
            self._last_key = max([self._last_key, *(layer.key for layer in state.layers)])
            while self._undo and (len(self._undo) > HISTORY_STEPS or self.bytes > self.history_bytes):
                del self._undo[0]

    def open(self, state: StackState) -> None:
        """Another stack altogether; its layers get keys that none had, for something may still be painted for one."""
        with self.lock:
            layers = [replace(layer, key=self.new_key()) for layer in state.layers]
            self.change(replace(state, layers=tuple(layers)))

    @property
    def bytes(self) -> int:
        """Memory of all pictures, those of former states included, each counted once."""
        return bytes_of([self.state, *self._undo, *self._redo])

    def new_key(self) -> int:
        """A key that no layer has or had."""
        with self.lock:
            self._last_key += 1
            return self._last_key

    def add_picture(self, picture: Image.Image, name: str = "", role: str = PLAIN, **more: Any) -> StackLayer:
        """A given picture on top, in the middle, made smaller where it is larger than the canvas."""
        with self.lock:
            width, height = self.state.width, self.state.height
            scale = min(1.0, width / picture.width, height / picture.height)
            layer = StackLayer(self.new_key(), name or "Picture", picture, scale=max(scale, SCALES[0]), role=role)
            layer = replace(layer.with_middle(width / 2, height / 2), **more)
            self.change(self.state.put(layer))
            return layer

    def set_background(self, picture: Image.Image, name: str = "Background", **more: Any) -> StackLayer:
        """A given picture as the background, cut and scaled to fill the canvas; in the place of a former one."""
        with self.lock:
            filling = filled(as_rgba(picture), (self.state.width, self.state.height))
            return self._put_background(StackLayer(self.new_key(), name, filling, role=BACKGROUND, **more))

    def _put_background(self, layer: StackLayer) -> StackLayer:
        former = self.state.background
        self.change((self.state.without(former.key) if former else self.state).put(layer, 0))
        return layer

    def update(self, key: int, middle: tuple[float, float] | None = None, **changes: Any) -> StackLayer:
        """Another name, place, opacity and so on; a new scale keeps the middle, unless a place or `middle` is given."""
        with self.lock:
            layer = self.state.layer(key)
            changed = replace(layer, **changes)
            if middle is not None or ("scale" in changes and not {"left", "top"} & set(changes)):
                changed = changed.with_middle(*(middle or layer.middle))
            self.change(self.state.with_layer(changed))
            return changed

    def replace_picture(self, key: int, picture: Image.Image, name: str = "") -> StackLayer:
        """Another picture in the place of a layer's: fills the canvas as a background, else about the same middle."""
        with self.lock:
            layer = self.state.layer(key)
            if layer.role == BACKGROUND:
                picture = filled(as_rgba(picture), (self.state.width, self.state.height))
            changed = replace(layer, picture=picture, scale=1.0, seed=None, name=name or layer.name)
            return self._keep(changed if layer.role == BACKGROUND else changed.with_middle(*layer.middle))

    def _keep(self, layer: StackLayer) -> StackLayer:
        self.change(self.state.with_layer(layer))
        return layer

    def move(self, key: int, by: int) -> None:
        """Up by so many places, down for less than 0; a background stays below."""
        with self.lock:
            layer, place = self.state.layer(key), self.state.found(key)
            lowest = 1 if self.state.background is not None else 0
            if place < lowest:
                return
            target = min(max(place + by, lowest), len(self.state.layers) - 1)
            self.change(self.state.without(key).put(layer, target))

    def delete(self, key: int) -> None:
        """Without a layer; its neighbours stay as they are."""
        with self.lock:
            self.change(self.state.without(key))

    def duplicate(self, key: int) -> StackLayer:
        """A second one above it, which shares the picture."""
        with self.lock:
            layer = replace(self.state.layer(key), key=self.new_key())
            layer = replace(layer, role=PLAIN if layer.role == BACKGROUND else layer.role)
            self.change(self.state.put(layer, self.state.found(key) + 1))
            return layer

    def request_background(self, prompt: str, seed: int = -1) -> PaintRequest:
        """For a background."""
        return self._request(prompt, seed, 1.0, BACKGROUND)

    def request_layer(self, prompt: str, seed: int = -1, weight: float = 1.0) -> PaintRequest:
        """For a new layer on top of all that shows; for a thing on nothing where nothing does."""
        return self._request(prompt, seed, weight, FOREGROUND, self._below(None))

    def request_again(self, key: int, prompt: str, seed: int = -1, weight: float = 1.0) -> PaintRequest:
        """For a layer again, on what is below it."""
        layer = self.state.layer(key)
        if layer.role == BACKGROUND:
            return replace(self.request_background(prompt, seed), key=key)
        return replace(self._request(prompt, seed, weight, FOREGROUND, self._below(key)), key=key)

    def _below(self, key: int | None) -> Image.Image | None:
        state = self.state
        below = state.place_of(key) if key is not None else None
        if not any(layer.visible and layer.opacity > 0 for layer in state.layers[:below]):
            return None
        return state.composite(below)

    def _request(
        self, prompt: str, seed: int, weight: float, role: str, background: Image.Image | None = None
    ) -> PaintRequest:
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError("an empty prompt", "a few words", "say what the layer shows, such as a red apple")
        seed = secrets.randbelow(SEEDS) if seed is None or seed < 0 else int(seed)
        if background is not None:
            background = rounded_up(background)
        width, height = (-(-side // STEP) * STEP for side in (self.state.width, self.state.height))
        return PaintRequest(prompt.strip(), seed, float(weight), width, height, role, background)

    def take(self, request: PaintRequest, picture: Image.Image) -> StackLayer:
        """The answer to a request: a new layer, or one painted again, where it still is."""
        expected = (request.width, request.height)
        if picture.size != expected:
            picture = picture.resize(expected, Image.Resampling.LANCZOS)
        with self.lock:
            painted = as_rgba(picture).crop((0, 0, self.state.width, self.state.height))
            layer = StackLayer(self.new_key(), request.title, painted, role=request.role)
            layer = replace(layer, prompt=request.prompt, seed=request.seed, weight=request.weight)
            if self.state.place_of(request.key) is not None:
                former = self.state.layer(request.key)
                name = request.title if former.name == title_of(former.prompt, former.role) else former.name
                kept = {"opacity": former.opacity, "visible": former.visible, "name": name}
                return self._keep(replace(layer, key=former.key, **kept))
            if request.role == BACKGROUND:
                return self._put_background(layer)
            self.change(self.state.put(layer))
            return layer

    def paint(self, painter: Painter, request: PaintRequest) -> StackLayer:
        """Answers a request by a painter."""
        return self.take(request, painter(request))


def bytes_of(states: Iterable[StackState]) -> int:
    """Memory of the pictures of states, each counted once."""
    pictures = {id(layer.picture): layer.picture for state in states for layer in state.layers}
    return sum(4 * picture.width * picture.height for picture in pictures.values())


def paint_all(stack: Stack, painter: Painter, requests: Sequence[Callable[[Stack], PaintRequest]]) -> list[StackLayer]:
    """Answers requests one after the other, each made when its turn comes: on the composite of those before."""
    return [stack.paint(painter, request(stack)) for request in requests]
