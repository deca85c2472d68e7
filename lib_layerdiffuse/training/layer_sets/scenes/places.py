"""Painters of towns, the night, caves and space."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .canvas import Canvas, Colour, Place
from .parts import sky, stars, windows


def night(canvas: Canvas) -> Place:
    """A starry sky with the moon over dark hills."""
    top, low = (
        canvas.vary((0.02, 0.04, 0.14), 0.02),
        canvas.vary(canvas.pick(((0.10, 0.16, 0.38), (0.16, 0.14, 0.36))), 0.03),
    )
    horizon = canvas.between(0.66, 0.76)
    canvas.paint(1.0, canvas.gradient(top, low, 0, horizon))
    band = np.exp(-(((canvas.y - canvas.between(0.1, 0.4) - canvas.between(-0.5, 0.5) * canvas.x) / 0.13) ** 2))
    canvas.glow(band * canvas.noise((6, 6), 4) * 0.3, (0.6, 0.6, 0.9))
    stars(canvas, int(canvas.between(140, 320)), horizon)
    x, y = canvas.between(0.15, 0.85), canvas.between(0.12, 0.26)
    _moon(canvas, x, y, canvas.between(0.055, 0.09), top)
    for step in range(2):
        line = horizon + 0.07 * step + 0.035 * canvas.hills(canvas.between(0.7, 1.6)) + 0.006 * canvas.profile(40, 2)
        canvas.paint(canvas.below(line), np.array((0.05, 0.08, 0.14)) * (1.4 - 0.5 * step))
    near = horizon + 0.12
    canvas.glow(canvas.below(near, 0.1) * 0.16 * canvas.noise((12, 20), 2), (0.5, 0.6, 0.9))
    return Place((horizon + 0.12, 0.95), (0.72, 0.78, 1.0), 2 * x - 1)


def _moon(canvas: Canvas, x: float, y: float, radius: float, dark: np.ndarray) -> None:
    canvas.glow(canvas.halo(x, y, radius * 4.5, 2.5) * 0.4, (0.7, 0.75, 1.0))
    disc = canvas.disc(x, y, radius)
    spots = np.clip(canvas.noise((22, 22), 2) - 0.5, 0, 1)
    if canvas.chance(0.5):  # a crescent
        disc = disc * (1 - canvas.disc(x + radius * canvas.pick((-0.55, 0.55)), y - radius * 0.2, radius * 0.95))
    canvas.paint(disc, np.array((0.98, 0.96, 0.86)) * (1 - 0.5 * spots)[..., None])


def city(canvas: Canvas) -> Place:
    """A skyline of towers behind a street or a river."""
    foot = canvas.between(0.66, 0.74)
    hour, light = sky(canvas, foot, ("day", "noon", "grey", "evening"))
    haze = np.array((0.72, 0.80, 0.88)) if hour != "evening" else np.array((0.90, 0.66, 0.52))
    for layer in range(3):
        near = layer / 2
        wall = canvas.vary(
            canvas.pick(((0.42, 0.48, 0.58), (0.56, 0.50, 0.48), (0.36, 0.44, 0.50), (0.66, 0.62, 0.58))), 0.05
        )
        _towers(canvas, foot, 0.46 - 0.12 * layer, haze * (0.8 - 0.7 * near) + wall * (0.2 + 0.7 * near), layer)
    if canvas.chance(0.5):
        _pavement(canvas, foot)
    else:
        _river(canvas, foot)
    return Place((foot + 0.12, 0.95), tuple(light), canvas.between(-0.6, 0.6))


def _towers(canvas: Canvas, foot: float, tall: float, colour: np.ndarray, layer: int) -> None:
    left = -0.04
    while left < 1:
        wide, high = canvas.between(0.07, 0.15), tall * canvas.between(0.45, 1.15)
        wall, top = canvas.vary(colour, 0.04), foot - high
        canvas.block((left, top, left + wide, foot), wall)
        canvas.block((left + wide * 0.72, top, left + wide, foot), wall * 0.6, 0.25)
        roof = canvas.random.random()
        if roof < 0.2:
            canvas.block((left + wide / 2 - 0.003, top - 0.07, left + wide / 2 + 0.003, top), wall * 0.8)
        elif roof < 0.4:
            canvas.block((left + wide * 0.25, top - 0.03, left + wide * 0.75, top), wall * 0.95)
        if layer:
            glass = (wall * 0.62 + np.array((0.02, 0.05, 0.09)), np.clip(wall * 0.5 + np.array((0.45, 0.5, 0.5)), 0, 1))
            windows(canvas, (left + 0.012, top + 0.015, left + wide - 0.012, foot - 0.02), 0.3, glass)
        left += wide * canvas.between(0.85, 1.15)


def _pavement(canvas: Canvas, foot: float) -> None:
    canvas.paint(canvas.below(foot), canvas.gradient((0.62, 0.62, 0.62), (0.70, 0.69, 0.67), foot, 1))
    road = canvas.below(foot + 0.05) * (1 - canvas.below(foot + 0.17))
    canvas.paint(road, (0.30, 0.31, 0.33))
    dashes = (np.floor(canvas.x * 9) % 2) * canvas.box(0, foot + 0.10, 1, foot + 0.113)
    canvas.paint(dashes, (0.95, 0.93, 0.85))
    canvas.shade(1 + 0.05 * canvas.grain() * canvas.below(foot))


def _river(canvas: Canvas, foot: float) -> None:
    rows = np.clip(2 * foot - canvas.y[:, 0], 0, foot)
    shift = (canvas.noise((40, 6), 1) - 0.5) * 0.05
    source = np.clip(((rows[:, None] + shift) * canvas.side).astype(int), 0, canvas.side - 1)
    mirror = canvas.picture[source, np.arange(canvas.side)[None, :]]
    canvas.paint(canvas.below(foot), mirror * 0.62 + np.array((0.06, 0.12, 0.18)))
    canvas.paint(canvas.box(0, foot - 0.008, 1, foot + 0.012), (0.45, 0.45, 0.45))


def street(canvas: Canvas) -> Place:
    """A street at night: lit windows, lamps with their glow, a wet road."""
    canvas.paint(1.0, canvas.gradient((0.03, 0.04, 0.12), canvas.vary((0.18, 0.14, 0.30)), 0, 0.55))
    vanish, level = canvas.between(0.40, 0.60), canvas.between(0.50, 0.56)
    canvas.paint(canvas.below(level), canvas.gradient((0.14, 0.14, 0.19), (0.20, 0.20, 0.25), level, 1))
    for side in (-1, 1):
        _house_row(canvas, vanish, level, side)
    depth = np.clip((canvas.y - level) / (1 - level), 0, 1)
    road = np.clip((0.02 + 0.55 * depth - np.abs(canvas.x - vanish)) * 60, 0, 1) * canvas.below(level)
    canvas.paint(road, (0.10, 0.10, 0.14))
    marks = (np.sin(12 / (depth + 0.12)) > 0) * np.clip((0.012 * depth + 0.002 - np.abs(canvas.x - vanish)) * 200, 0, 1)
    canvas.paint(marks * road * 0.8, (0.85, 0.82, 0.65))
    lamp = canvas.pick(((1.0, 0.80, 0.45), (1.0, 0.88, 0.62), (0.75, 0.88, 1.0)))
    for near in (0.2, 1.0):
        for side in (-1, 1):
            _lamp(canvas, vanish + side * (0.06 + 0.36 * near), level + 0.02 + 0.24 * near, 0.16 + 0.36 * near, lamp)
    return Place((0.78, 0.95), (0.95, 0.82, 0.72), canvas.between(-0.6, 0.6))


def _house_row(canvas: Canvas, vanish: float, level: float, side: int) -> None:
    """House fronts that shrink towards the vanishing point."""
    edges = (0.04, 0.10, 0.19, 0.32, 0.62)
    for far, near in pairwise(edges):
        wall = canvas.vary(canvas.pick(((0.18, 0.14, 0.20), (0.22, 0.16, 0.15), (0.13, 0.16, 0.24))), 0.03)
        front = _Front(vanish, level, side, (far, near), canvas.between(0.9, 1.3))
        canvas.paint(canvas.polygons([front.part(0, 1, 0, 1)]), wall)
        cells = [(column, row) for column in (0.11, 0.41, 0.71) for row in (0.12, 0.32, 0.52, 0.74)]
        panes = [front.part(a, a + 0.18, b, b + 0.11) for a, b in cells if canvas.chance(0.55)]
        if panes:
            canvas.paint(canvas.polygons(panes), canvas.vary((0.98, 0.80, 0.42), 0.05))


@dataclass(frozen=True)
class _Front:
    """A house front in perspective between two distances from the vanishing point."""

    vanish: float
    level: float
    side: int
    reach: tuple[float, float]
    tall: float

    def part(self, left: float, right: float, top: float, bottom: float) -> list[tuple[float, float]]:
        """Polygon of a part of the front, in shares of its width and height."""
        return [self._point(a, b) for a, b in ((left, top), (right, top), (right, bottom), (left, bottom))]

    def _point(self, along: float, down: float) -> tuple[float, float]:
        away = self.reach[0] + (self.reach[1] - self.reach[0]) * along
        high, low = self.level - 0.06 - away * self.tall, self.level + 0.01 + away * 0.42
        return self.vanish + self.side * away, high + (low - high) * down


def _lamp(canvas: Canvas, x: float, foot: float, tall: float, colour: Colour) -> None:
    canvas.paint(canvas.strokes([[(x, foot), (x, foot - tall)]], 0.004 + 0.016 * tall), (0.05, 0.05, 0.07))
    canvas.glow(canvas.halo(x, foot - tall, tall * 0.55, 2.2), colour)
    canvas.paint(canvas.disc(x, foot - tall, 0.012 + tall * 0.05), np.clip(np.array(colour) + 0.1, 0, 1))
    pool = canvas.disc(x, foot, tall * 0.5, tall * 0.6, 0.3) * canvas.below(foot - tall * 0.2)
    canvas.glow(pool * 0.35, colour)


def cave(canvas: Canvas) -> Place:
    """Dark rock around a bright opening, stones hanging and standing."""
    rock = canvas.vary(canvas.pick(((0.30, 0.26, 0.24), (0.24, 0.26, 0.32), (0.36, 0.28, 0.20))))
    x, y = canvas.between(0.35, 0.65), canvas.between(0.36, 0.46)
    outside = canvas.pick(((0.72, 0.86, 0.95), (0.98, 0.86, 0.60), (0.60, 0.82, 0.78)))
    canvas.paint(1.0, canvas.gradient(np.clip(np.array(outside) + 0.1, 0, 1), np.array(outside) * 0.8, 0.1, 0.7))
    hills = y + 0.10 + 0.03 * canvas.hills(2)
    canvas.paint(canvas.below(hills), np.array((0.40, 0.55, 0.36)) * 0.6 + np.array(outside) * 0.4)
    for step in range(3):
        _rock_ring(canvas, (x, y), 0.20 + 0.10 * step, rock * (1.15 - 0.33 * step))
    floor = canvas.below(y + 0.24 + 0.02 * canvas.profile(5, 3), 0.02)
    canvas.paint(floor, rock * (0.75 + 0.8 * (canvas.noise((14, 7), 3) - 0.4))[..., None])
    canvas.glow(canvas.halo(x, y, 0.55, 2) * 0.35, outside)
    hanging = [_spike(canvas, canvas.between(0, 1), -0.02, canvas.between(0.10, 0.32)) for _ in range(9)]
    standing = [
        _spike(
            canvas, canvas.pick((canvas.between(0, 0.22), canvas.between(0.78, 1))), 1.02, -canvas.between(0.14, 0.36)
        )
        for _ in range(4)
    ]
    canvas.paint(canvas.polygons(hanging + standing), rock * 0.34)
    return Place((y + 0.36, 0.94), (0.82, 0.82, 0.84), 2 * x - 1)


def _rock_ring(canvas: Canvas, middle: tuple[float, float], radius: float, colour: np.ndarray) -> None:
    angle = np.arctan2(canvas.y - middle[1], canvas.x - middle[0])
    ragged = sum(canvas.between(0.3, 1) * np.sin(k * angle + canvas.between(0, 6)) / k**0.5 for k in (3, 5, 8, 13))
    distance = np.sqrt(((canvas.x - middle[0]) * 0.9) ** 2 + (canvas.y - middle[1]) ** 2)
    mask = np.clip((distance - radius - 0.022 * ragged) * canvas.side / 2, 0, 1)
    relief = canvas.noise((9, 9), 4)
    light = np.clip((relief - np.roll(relief, 3, axis=0)) * 9, -0.4, 0.4)
    canvas.paint(mask, colour * (0.95 + light)[..., None])


def _spike(canvas: Canvas, x: float, root: float, reach: float) -> list[tuple[float, float]]:
    half = abs(reach) * canvas.between(0.16, 0.26)
    return [
        (x - half, root),
        (x - half * 0.35, root + reach * 0.5),
        (x, root + reach),
        (x + half * 0.35, root + reach * 0.5),
        (x + half, root),
    ]


def space(canvas: Canvas) -> Place:
    """Black sky with stars, a nebula, planets."""
    canvas.paint(1.0, (0.015, 0.015, 0.04))
    for _ in range(2):
        colour = canvas.pick(((0.50, 0.15, 0.60), (0.10, 0.30, 0.70), (0.75, 0.25, 0.35), (0.10, 0.5, 0.5)))
        cloud = np.clip(canvas.noise((3, 3), 5) * 1.7 - 0.75, 0, 1) ** 1.5
        canvas.glow(cloud * 0.9, colour)
    stars(canvas, int(canvas.between(180, 360)))
    x, y = canvas.between(0.15, 0.85), canvas.between(0.12, 0.4)
    _planet(canvas, x, y, canvas.between(0.09, 0.17), ring=canvas.chance(0.5))
    if canvas.chance(0.6):
        _planet(canvas, 1 - x, canvas.between(0.1, 0.7), canvas.between(0.03, 0.06), ring=False)
    return Place((0.55, 0.95), (0.92, 0.92, 1.0), canvas.between(-0.8, 0.8), floor=False)


def _planet(canvas: Canvas, x: float, y: float, radius: float, ring: bool) -> None:
    colour = canvas.vary(
        canvas.pick(((0.85, 0.60, 0.38), (0.35, 0.55, 0.85), (0.80, 0.38, 0.28), (0.55, 0.75, 0.6), (0.86, 0.78, 0.6)))
    )
    tilt = canvas.between(-0.35, 0.35)
    u, v = canvas.x - x, canvas.y - y
    along, across = u * np.cos(tilt) + v * np.sin(tilt), -u * np.sin(tilt) + v * np.cos(tilt)
    reach = np.sqrt(along**2 + (across / 0.28) ** 2) / radius
    band = np.clip((0.26 - np.abs(reach - 1.65)) * 20, 0, 1) * 0.8 if ring else np.zeros_like(reach)
    canvas.paint(band * (across < 0), colour * 0.7 + 0.25)
    light = np.clip(1.15 - np.sqrt((u + radius * 0.45) ** 2 + (v + radius * 0.45) ** 2) / (radius * 1.55), 0.06, 1)
    stripes = 1 + 0.16 * np.sin(across / radius * 9 + canvas.noise((6, 6), 2) * 4)
    canvas.paint(canvas.disc(x, y, radius), colour * (light * stripes * 1.15)[..., None])
    canvas.paint(band * (across >= 0), colour * 0.7 + 0.25)
