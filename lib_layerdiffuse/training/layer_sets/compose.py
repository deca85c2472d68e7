"""Layer sets composed from cut-out things and backdrops: foreground, background, and the two blended.

A plan says what stands where, drawn from a seed alone; the pixels then follow in batches on any device. A pair of a
thing and a scene is held out by its checksum, one in eight, so that a model can be asked for what it never saw.
Blended is the foreground over the background, exactly: shadow and light belong to the foreground.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ...core.errors import InputError
from ...core.picture.alpha import PYRAMID_RATIO
from ...core.picture.resize import Taps, area_taps, linear_taps
from ..pictures.data import PreparedSet, concept_key
from ..settings import ComposeOptions
from .backdrops import Backdrops
from .layer_captions import blended_captions, foreground_captions
from .layer_sets import LayerSet

HOLD_OUT_ONE_IN = 8
MOST_THINGS = 3
OVERSAMPLING = 2  # things are shrunk to a third at most; bilinear samples alone would skip pixels


@dataclass
class Things:
    """Cut-out things: `rgba` uint8 [N,4,S,S], padded; the ways to ask for each. Work is done where the pixels lie."""

    rgba: torch.Tensor
    captions: list[list[str]]

    @classmethod
    def of(cls, data: PreparedSet, captions: list[list[str]]) -> Things:
        """The things of a prepared set. InputError for an empty one."""
        if not len(data):
            raise InputError("a set without images", "at least one", "check the set")
        return cls(data.rgba, captions)

    @property
    def concepts(self) -> list[str]:
        """The concept of each thing: looks and styles of one concept are drawn as often as one look of another."""
        return [concept_key(texts[0]) for texts in self.captions]

    def boxes(self) -> np.ndarray:
        """Left, top, right, bottom [N,4] of what is visible, in shares of the side."""
        seen = (self.rgba[:, 3] > 64).cpu()
        edges = [_span(seen.any(dim=dim)) for dim in (1, 2)]
        return np.stack([edges[0][0], edges[1][0], edges[0][1], edges[1][1]], axis=1) / self.rgba.shape[-1]


def _bytes(values: torch.Tensor) -> torch.Tensor:
    return (values * 255).round().byte()


def _span(seen: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First and last+1 true places [N] of bool [N,S]; the whole line where none is true."""
    marks = seen.numpy()
    marks[~marks.any(axis=1)] = True
    return marks.argmax(axis=1), marks.shape[1] - marks[:, ::-1].argmax(axis=1)


def is_held_out_pair(thing: str, scene: str) -> bool:
    """Whether a thing is kept out of a scene in training: one pair in eight, by checksum."""
    return zlib.crc32(f"{concept_key(thing)}|{scene}".encode()) % HOLD_OUT_ONE_IN == 0


def held_out_pairs(things: Iterable[str], scenes: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs that are never composed for training."""
    scenes = list(scenes)
    return [(thing, scene) for thing in dict.fromkeys(things) for scene in scenes if is_held_out_pair(thing, scene)]


@dataclass
class Plan:
    """What stands where in N pictures, at most three things each, in the order in which they are laid down.

    `thing` [N,3] (-1: none), `left`, `top` and `scale` [N,3] of a thing's square and `flip` [N,3]; `backdrop` [N],
    `cut` [N,2] in [0,1], `mirrored` [N]; `shadow` [N]; in shares of the side.
    """

    thing: np.ndarray
    left: np.ndarray
    top: np.ndarray
    scale: np.ndarray
    flip: np.ndarray
    backdrop: np.ndarray
    cut: np.ndarray
    mirrored: np.ndarray
    shadow: np.ndarray

    def __len__(self) -> int:
        return len(self.backdrop)


class Planner:
    """Draws plans: scene, things that may stand there, sizes and places."""

    def __init__(self, things: Things, backdrops: Backdrops, options: ComposeOptions, seed: int):
        self.options, self.backdrops, self.boxes = options, backdrops, things.boxes()
        self.random = np.random.default_rng(seed)
        self.images = _groups(things.concepts)
        self.concepts = list(self.images)
        self.pictures = _groups([backdrops.words[number].name for number in backdrops.scene])

    def plan(self, count: int, held_out: bool) -> Plan:
        """A plan of `count` pictures: with pairs for training, or each of the held-out pairs in turn."""
        pairs = self._held_out(count) if held_out else self._training(count)
        rows = [self._picture(concepts, scene) for concepts, scene in pairs]
        return Plan(**{key: np.array([row[key] for row in rows]) for key in rows[0]})

    def _held_out(self, count: int) -> list[tuple[list[str], str]]:
        pairs = held_out_pairs(self.concepts, self.pictures)
        if not pairs:
            raise InputError("no held-out pair of a thing and a scene", "more things or scenes", "compose without")
        order = self.random.permutation(len(pairs))
        return [([pairs[i][0]], pairs[i][1]) for i in np.resize(order, count)]

    def _training(self, count: int) -> list[tuple[list[str], str]]:
        usable = {s: [c for c in self.concepts if not is_held_out_pair(c, s)] for s in self.pictures}
        scenes = [scene for scene, concepts in usable.items() if concepts]
        if not scenes:
            raise InputError("held-out pairs only", "a thing that may stand in a scene", "add things or scenes")
        pairs = []
        for scene in self.random.choice(scenes, count):
            wanted = 1
            if self.random.random() < self.options.several_share:
                wanted = 2 if self.random.random() < 0.7 else MOST_THINGS
            chosen = self.random.choice(usable[scene], min(wanted, len(usable[scene])), replace=False)
            pairs.append(([str(concept) for concept in chosen], str(scene)))
        return pairs

    def _picture(self, concepts: Sequence[str], scene: str) -> dict[str, np.ndarray | float | int | bool]:
        """A row of a plan."""
        backdrop = int(self.random.choice(self.pictures[scene]))
        place = self.backdrops.places[backdrop]
        things = [int(self.random.choice(self.images[concept])) for concept in concepts]
        empty = {"thing": -1, "left": 0.0, "top": 0.0, "scale": 1.0, "flip": False}
        stood = self._stand(things, place.ground)
        stood += [empty] * (MOST_THINGS - len(stood))
        row = {key: np.array([each[key] for each in stood]) for key in empty}
        shadow = place.floor and self.random.random() < self.options.shadow_share
        sides = {"cut": self.random.random(2), "mirrored": bool(self.random.random() < 0.5)}
        return {**row, **sides, "backdrop": backdrop, "shadow": bool(shadow)}

    def _stand(self, things: Sequence[int], ground: tuple[float, float]) -> list[dict]:
        """The things side by side on the ground, the farther ones first."""
        count, options = len(things), self.options
        largest = options.largest if count == 1 else max(options.smallest, options.largest * (0.75, 0.6)[count - 2])
        places, stood = self.random.permutation(count), []
        for thing, slot in zip(things, places, strict=True):
            scale = self.random.uniform(options.smallest, largest)
            near = np.clip((scale - options.smallest) / 0.45 + self.random.uniform(-0.3, 0.3), 0, 1)
            foot = ground[0] + (ground[1] - ground[0]) * near
            flip = bool(self.random.random() < 0.5)
            left, top, right, bottom = self.boxes[thing]
            if flip:
                left, right = 1 - right, 1 - left
            foot = min(0.98, max(foot, 0.03 + (bottom - top) * scale))
            half = (right - left) * scale / 2
            low, high = min(0.5, half + 0.02), max(0.5, 0.98 - half)
            aside = self.random.uniform(0.2, 0.8, 2).mean() if count == 1 else self.random.uniform(0.25, 0.75)
            middle = np.clip((slot + aside) / count, low, high)
            x, y = middle - scale * (left + right) / 2, foot - scale * bottom
            stood.append({"thing": thing, "left": x, "top": y, "scale": scale, "flip": flip, "foot": foot})
        return sorted(stood, key=lambda each: each["foot"])


def _groups(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(name, []).append(number)
    return found


@torch.no_grad()
def compose(
    things: Things,
    backdrops: Backdrops,
    options: ComposeOptions,
    count: int,
    held_out: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> LayerSet:
    """`count` layer sets of the things' size, seeded by `options.seed`."""
    device = things.rgba.device
    plan = Planner(things, backdrops, options, options.seed + (10**6 if held_out else 0)).plan(count, held_out)
    painter = Painter(things, backdrops, options)
    side = things.rgba.shape[-1]
    layers = [torch.empty(count, channels, side, side, dtype=torch.uint8) for channels in (4, 3, 3)]
    for rows in progress(torch.arange(count).split(256 if device.type == "cuda" else 16)):
        for layer, pixels in zip(layers, painter.paint(plan, rows.numpy()), strict=True):
            layer[rows] = pixels.cpu()
    captions, names = _captions(things, backdrops, plan)
    return LayerSet(*layers, captions=captions, names=names, held_out=[held_out] * count)


def _captions(things: Things, backdrops: Backdrops, plan: Plan) -> tuple[list[list[list[str]]], list[str]]:
    """For every set the captions of foreground, background and blended, and a name for it."""
    captions, names = [], []
    for thing, backdrop in zip(plan.thing.tolist(), plan.backdrop.tolist(), strict=True):
        words = backdrops.words[backdrops.scene[backdrop]]
        shown = [number for number in thing if number >= 0]
        texts = [things.captions[number] for number in shown]
        captions.append([foreground_captions(texts), list(words.captions), blended_captions(texts, words.phrases)])
        names.append(f"{' + '.join(things.captions[number][0] for number in shown)} | {words.name}")
    return captions, names


class Painter:
    """Turns rows of a plan into pixels."""

    def __init__(self, things: Things, backdrops: Backdrops, options: ComposeOptions):
        self.things, self.backdrops, self.options = things, backdrops, options
        self.device = things.rgba.device
        self.side = things.rgba.shape[-1]
        self.boxes = torch.from_numpy(things.boxes()).float()
        light = [(*place.light, place.light_x) for place in backdrops.places]
        self.light = torch.tensor(light, dtype=torch.float32)

    def paint(self, plan: Plan, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """uint8 foreground [B,4,S,S] (padded), background and blended [B,3,S,S] of some rows of a plan."""
        layer = torch.zeros(len(rows), 4, self.side, self.side, device=self.device)
        for slot in range(MOST_THINGS):
            some = np.flatnonzero(plan.thing[rows, slot] >= 0)
            if len(some):
                place = torch.from_numpy(some).to(self.device)
                layer[place] = self._laid(layer[place], plan, rows[some], slot)
        alpha = quantised(layer[:, 3:])
        straight = torch.where(alpha > 0, layer[:, :3] / layer[:, 3:].clamp(min=1e-4), 0.0).clamp(0, 1)
        colour = pad_colour(torch.cat([straight, alpha], dim=1))
        foreground = quantised(torch.cat([colour, alpha], dim=1))
        background = self._background(plan, rows)
        blended = foreground[:, :3] * alpha + background * (1 - alpha)
        return _bytes(foreground), _bytes(background), _bytes(blended)

    def _background(self, plan: Plan, rows: np.ndarray) -> torch.Tensor:
        pictures = self.backdrops.pictures[torch.from_numpy(plan.backdrop[rows])]
        room = pictures.shape[-1] - self.side
        cut = np.rint(plan.cut[rows] * room).astype(int)
        parts = [p[:, y : y + self.side, x : x + self.side] for p, (y, x) in zip(pictures, cut.tolist(), strict=True)]
        background = torch.stack(parts).to(self.device).float() / 255
        mirrored = torch.from_numpy(plan.mirrored[rows]).to(self.device)[:, None, None, None]
        return torch.where(mirrored, background.flip(-1), background)

    def _laid(self, below: torch.Tensor, plan: Plan, rows: np.ndarray, slot: int) -> torch.Tensor:
        """Premultiplied `below` [B,4,S,S] with the things of a slot, and their shadows, laid over it."""
        above = self._placed(plan, rows, slot)
        above = torch.cat([above[:, :3] * self._lit(plan, rows), above[:, 3:]], dim=1)
        above[:, :3] = torch.minimum(above[:, :3], above[:, 3:])
        shadow = self._shadow(plan, rows, slot)
        below = below * (1 - shadow)
        below[:, 3:] += shadow
        return above + below * (1 - above[:, 3:])

    def _placed(self, plan: Plan, rows: np.ndarray, slot: int) -> torch.Tensor:
        """The things at their places, premultiplied [B,4,S,S]."""
        thing = torch.from_numpy(plan.thing[rows, slot])
        rgba = self.things.rgba[thing.to(self.device)].float() / 255
        rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
        scale, left, top = (plan.__dict__[key][rows, slot] for key in ("scale", "left", "top"))
        flip = np.where(plan.flip[rows, slot], -1.0, 1.0)
        theta = np.zeros((len(rows), 2, 3), np.float32)
        theta[:, 0, 0], theta[:, 1, 1] = flip / scale, 1 / scale
        theta[:, 0, 2], theta[:, 1, 2] = flip * ((1 - 2 * left) / scale - 1), (1 - 2 * top) / scale - 1
        size = [len(rows), 4, self.side * OVERSAMPLING, self.side * OVERSAMPLING]
        grid = F.affine_grid(torch.from_numpy(theta).to(self.device), size, align_corners=False)
        placed = F.grid_sample(rgba, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return F.avg_pool2d(placed, OVERSAMPLING)

    def _lit(self, plan: Plan, rows: np.ndarray) -> torch.Tensor:
        """What the scene's light does to colours, [B,3,1,S]: its hue, and the side that it comes from."""
        light = self.light[torch.from_numpy(plan.backdrop[rows])].to(self.device)
        mirrored = torch.from_numpy(np.where(plan.mirrored[rows], -1.0, 1.0)).float().to(self.device)
        across = torch.linspace(-1, 1, self.side, device=self.device)
        slope = 1 + 0.25 * self.options.light * (light[:, 3] * mirrored)[:, None, None, None] * across
        return (1 + self.options.light * (light[:, :3, None, None] - 1)) * slope

    def _shadow(self, plan: Plan, rows: np.ndarray, slot: int) -> torch.Tensor:
        """Alpha of contact shadows [B,1,S,S]: a flat soft ellipse under each thing."""
        box = self.boxes[torch.from_numpy(plan.thing[rows, slot])].numpy()
        left, top, scale = plan.left[rows, slot], plan.top[rows, slot], plan.scale[rows, slot]
        middle = np.where(plan.flip[rows, slot], 1 - (box[:, 0] + box[:, 2]) / 2, (box[:, 0] + box[:, 2]) / 2)
        shapes = (left + scale * middle, top + scale * box[:, 3] - 0.012, scale * (box[:, 2] - box[:, 0]) * 0.52)
        x, y, wide = (torch.from_numpy(v).float().to(self.device)[:, None, None] for v in shapes)
        axis = (torch.arange(self.side, device=self.device) + 0.5) / self.side
        distance = ((axis[None, None, :] - x) / wide) ** 2 + ((axis[None, :, None] - y) / (wide * 0.2)) ** 2
        dark = self.options.shadow * torch.exp(-1.6 * distance * distance.clamp(min=0.3))
        on = torch.from_numpy(plan.shadow[rows]).to(self.device)[:, None, None]
        return (dark * on)[:, None]


def quantised(values: torch.Tensor) -> torch.Tensor:
    """[0,1] to the nearest of 256 levels; what is fainter than one level is nothing."""
    return (values.clamp(0, 1) * 255).round() / 255


def pad_colour(rgba: torch.Tensor) -> torch.Tensor:
    """Straight [B,4,S,S] to colour [B,3,S,S] continued where nothing is visible, as `pad_rgb` does it."""
    levels = [torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)]
    while int(levels[-1].shape[-1] / PYRAMID_RATIO) >= 1:
        levels.append(_resampled(levels[-1], int(levels[-1].shape[-1] / PYRAMID_RATIO), area_taps))
    total = levels[0].sum(dim=(2, 3), keepdim=True)
    colour = total[:, :3] / total[:, 3:].clamp(min=1e-6)
    for level in reversed(levels):
        colour = level[:, :3] + _resampled(colour, level.shape[-1], linear_taps) * (1 - level[:, 3:])
    return torch.where(rgba[:, 3:] == 1, rgba[:, :3], colour.clamp(0, 1))


def _resampled(image: torch.Tensor, target: int, taps: Callable[[int, int], Taps]) -> torch.Tensor:
    matrix = _matrix(image.shape[-1], target, taps).to(image.device)
    return matrix @ image @ matrix.T


@lru_cache(maxsize=256)
def _matrix(size: int, target: int, taps: Callable[[int, int], Taps]) -> torch.Tensor:
    """[target,size] of a resampling."""
    rows, weights = taps(size, target)
    matrix = torch.zeros(target, size)
    return matrix.scatter_add_(1, torch.from_numpy(rows), torch.from_numpy(weights))
