"""A square canvas and the few brushes that the painted scenes need: gradients, noise, silhouettes, shapes.

Places are in [0,1] of the side, y downwards; colours are R,G,B in [0,1]; a mask is float [S,S] in [0,1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Item = TypeVar("Item")
Colour = Sequence[float] | np.ndarray
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Place:
    """Where a thing stands (its foot, from the far to the near end) and the light that falls on it.

    `light_x` is where the light comes from, -1 left to 1 right; `light` its colour, 1 as painted; `floor` says that
    there is a ground that takes shadows.
    """

    ground: tuple[float, float] = (0.72, 0.94)
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light_x: float = 0.0
    floor: bool = True


class Canvas:
    """`picture` float32 [S,S,3] in [0,1], painted over and over; every draw comes from `random`."""

    def __init__(self, side: int, seed: Sequence[int]):
        self.side, self.random = side, np.random.default_rng(seed)
        self.picture = np.zeros((side, side, 3), np.float32)

    @cached_property
    def x(self) -> np.ndarray:
        """[1,S], left to right."""
        return ((np.arange(self.side, dtype=np.float32) + 0.5) / self.side)[None, :]

    @cached_property
    def y(self) -> np.ndarray:
        """[S,1], top to bottom."""
        return self.x.T

    def between(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.random.uniform(low, high))

    def chance(self, share: float) -> bool:
        """True in a share of the cases."""
        return bool(self.random.random() < share)

    def pick(self, choices: Sequence[Item]) -> Item:
        """One of `choices`."""
        return choices[int(self.random.integers(len(choices)))]

    def vary(self, colour: Colour, spread: float = 0.04) -> np.ndarray:
        """A colour near `colour`: a little lighter or darker, and a little of another hue."""
        shift = self.random.uniform(-spread, spread) + self.random.uniform(-spread, spread, 3) * 0.6
        return np.clip(np.asarray(colour, np.float32) + shift.astype(np.float32), 0, 1)

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> np.ndarray:
        """[S,1,3]: `top` down to `start`, `bottom` from `end` on, smooth between."""
        share = np.clip((self.y - start) / max(end - start, 1e-3), 0, 1)[..., None]
        return np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share

    def paint(self, mask: np.ndarray | float, colour: Colour) -> None:
        """Lay `colour` ([3], or anything that broadcasts to [S,S,3]) over the picture where `mask` is."""
        mask = np.asarray(mask, np.float32)
        cover = mask[..., None] if mask.ndim else mask
        self.picture += (np.asarray(colour, np.float32) - self.picture) * cover

    def block(self, corners: tuple[float, float, float, float], colour: Colour, amount: float = 1.0) -> None:
        """A plain upright rectangle (left, top, right, bottom), quickly: for the many small parts of a picture."""
        left, top, right, bottom = (min(self.side, max(0, round(place * self.side))) for place in corners)
        part = self.picture[top:bottom, left:right]
        part += (np.asarray(colour, np.float32) - part) * amount

    def shade(self, factor: np.ndarray) -> None:
        """Multiply the brightness by `factor` [S,S]."""
        self.picture *= factor[..., None]

    def glow(self, mask: np.ndarray, colour: Colour) -> None:
        """Add light: screen `colour` over the picture where `mask` is."""
        light = mask[..., None] * np.asarray(colour, np.float32)
        self.picture = 1 - (1 - self.picture) * (1 - light)

    def noise(self, cells: tuple[float, float], octaves: int = 1) -> np.ndarray:
        """Smooth noise [S,S] about [0,1] with `cells` (down, across) over the side; each octave is twice as fine."""
        total, weight, norm = np.zeros((self.side, self.side), np.float32), 1.0, 0.0
        for octave in range(octaves):
            shape = [min(self.side, max(2, round(count * 2**octave) + 1)) for count in cells]
            coarse = self.random.random(shape, dtype=np.float32)
            fine = Image.fromarray(coarse).resize((self.side, self.side), Image.Resampling.BICUBIC)
            total, norm, weight = total + weight * np.asarray(fine), norm + weight, weight / 2
        return total / norm

    def grain(self) -> np.ndarray:
        """[S,S] about [-1,1]: fine sand-like noise of about one pixel of the finished picture."""
        half = self.random.standard_normal((self.side // 2 + 1, self.side // 2 + 1), dtype=np.float32)
        return half.repeat(2, 0).repeat(2, 1)[: self.side, : self.side] * 0.5

    def profile(self, cells: float, octaves: int = 3, rough: float = 0.5) -> np.ndarray:
        """A line [S] about [-1,1] with `cells` bends; `rough` is what each finer octave keeps: hills .3, rocks .6."""
        total, weight, place = np.zeros(self.side, np.float32), 1.0, self.x[0]
        for octave in range(octaves):
            count = max(2, round(cells * 2**octave)) + 1
            knots = self.random.uniform(-1, 1, count)
            total += weight * np.interp(place, np.linspace(0, 1, count), knots).astype(np.float32)
            weight *= rough
        return total

    def hills(self, cells: float) -> np.ndarray:
        """A wavy line [S] about [-1,1] without corners."""
        phases, amounts = self.random.uniform(0, 2 * np.pi, 3), self.random.uniform(0.4, 1, 3)
        waves = [
            a * np.sin(2 * np.pi * cells * f * self.x[0] + p)
            for a, f, p in zip(amounts, (0.6, 1, 1.9), phases, strict=True)
        ]
        return (np.sum(waves, axis=0) / 2).astype(np.float32)

    def below(self, line: np.ndarray | float, soft: float = 0.0) -> np.ndarray:
        """Mask of what is below `line` ([S] or a number), its edge smooth over a pixel or `soft`."""
        depth = self.y - (line[None, :] if isinstance(line, np.ndarray) else line)
        return np.broadcast_to(np.clip(depth / max(soft, 2 / self.side) + 0.5, 0, 1), (self.side, self.side))

    def disc(self, x: float, y: float, radius: float, soft: float = 0.0, flat: float = 1.0) -> np.ndarray:
        """Mask of a disc, its height `flat` times its width."""
        distance = np.sqrt((self.x - x) ** 2 + ((self.y - y) / flat) ** 2)
        return np.clip((radius - distance) / max(soft, 2 / self.side) + 0.5, 0, 1)

    def halo(self, x: float, y: float, radius: float, power: float = 2.0) -> np.ndarray:
        """Mask that falls from 1 at a point to 0 at `radius`."""
        distance = np.sqrt((self.x - x) ** 2 + (self.y - y) ** 2)
        return np.clip(1 - distance / radius, 0, 1) ** power

    def box(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """Mask of an upright rectangle with smooth edges."""
        reach = 2 / self.side
        across = np.clip(np.minimum(self.x - left, right - self.x) / reach + 0.5, 0, 1)
        down = np.clip(np.minimum(self.y - top, bottom - self.y) / reach + 0.5, 0, 1)
        return across * down

    def polygons(self, shapes: Sequence[Points]) -> np.ndarray:
        """Mask of filled polygons."""
        sheet = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(sheet)
        for shape in shapes:
            draw.polygon([(x * self.side, y * self.side) for x, y in shape], fill=255)
        return np.asarray(sheet, np.float32) / 255

    def ellipses(self, shapes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
        """Mask of filled ellipses (x, y, half width, half height)."""
        sheet = Image.new("L", (self.side, self.side))
        draw, side = ImageDraw.Draw(sheet), self.side
        for x, y, width, height in shapes:
            draw.ellipse([(x - width) * side, (y - height) * side, (x + width) * side, (y + height) * side], fill=255)
        return np.asarray(sheet, np.float32) / 255

    def strokes(self, lines: Sequence[Points], width: float) -> np.ndarray:
        """Mask of lines of `width`."""
        sheet = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(sheet)
        for line in lines:
            points = [(x * self.side, y * self.side) for x, y in line]
            draw.line(points, fill=255, width=max(1, round(width * self.side)), joint="curve")
        return np.asarray(sheet, np.float32) / 255

    def spots(self, places: np.ndarray, colours: np.ndarray, sizes: np.ndarray) -> None:
        """Coloured ellipses straight into the picture: places [N,2], colours [N,3], half sizes [N,2]."""
        sheet = Image.fromarray((self.picture.clip(0, 1) * 255).astype(np.uint8))
        draw, side = ImageDraw.Draw(sheet), self.side
        inks = (np.clip(colours, 0, 1) * 255).astype(int)
        corners = np.concatenate([places - sizes, places + sizes], axis=1) * side
        for corner, ink in zip(corners.tolist(), inks.tolist(), strict=True):
            draw.ellipse(corner, fill=tuple(ink))
        self.picture = np.asarray(sheet, np.float32) / 255

    def finished(self) -> np.ndarray:
        """uint8 [S/2,S/2,3]: two by two pixels to one."""
        half = self.side // 2
        small = self.picture.clip(0, 1).reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
        return (small * 255 + 0.5).astype(np.uint8)
