"""Painters of scenes on land, by day."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Place
from .parts import crown, fir, flakes, grass, scatter, sky, sun, tree


def meadow(canvas: Canvas) -> Place:
    """Green grass with flowers under a wide sky, hills far away."""
    horizon = canvas.between(0.36, 0.52)
    _, light = sky(canvas, horizon, ("noon", "day", "day", "morning"))
    side = canvas.between(-0.8, 0.8)
    if canvas.chance(0.35):
        sun(canvas, 0.5 + side / 2, canvas.between(0.08, 0.2), 0.04)
    for step in range(2):
        line = horizon - 0.05 + 0.035 * step + 0.035 * canvas.hills(canvas.between(0.8, 1.8))
        canvas.paint(canvas.below(line), canvas.vary((0.45, 0.62, 0.45), 0.05) + 0.1 * (1 - step))
    line = horizon + 0.015 + 0.02 * canvas.hills(0.7)
    grass(canvas, line, canvas.vary((0.52, 0.72, 0.28)), canvas.vary((0.22, 0.50, 0.14)))
    if canvas.chance(0.5):
        tree(
            canvas,
            canvas.pick((0.12, 0.2, 0.82, 0.9)),
            horizon + 0.1,
            canvas.between(0.26, 0.42),
            canvas.vary((0.30, 0.55, 0.2)),
        )
    flowers: list[Colour] = [
        canvas.pick([(0.97, 0.92, 0.3), (0.95, 0.35, 0.35), (0.75, 0.5, 0.9), (1, 1, 1)]),
        (1.0, 1.0, 0.95),
    ]
    scatter(canvas, horizon + 0.05, int(canvas.between(90, 320)), canvas.between(0.008, 0.013), flowers)
    return Place((horizon + 0.25, 0.95), tuple(light), side)


def forest(canvas: Canvas) -> Place:
    """Trunks in the mist, leaves above, moss or needles below."""
    kind = canvas.pick(((0.70, 0.82, 0.55), (0.78, 0.86, 0.72), (0.62, 0.76, 0.50), (0.90, 0.85, 0.55)))
    mist, floor = canvas.vary(kind), canvas.vary((0.26, 0.36, 0.13))
    ground = canvas.between(0.58, 0.68)
    canvas.paint(1.0, canvas.gradient(mist * 0.85, np.clip(mist * 1.12, 0, 1), 0, ground))
    for layer in range(4):
        near = layer / 3
        foot = ground + 0.01 + 0.07 * near
        colour = mist * (1 - near) * 0.8 + np.array((0.20, 0.15, 0.10)) * near + mist * 0.1
        _trunks(canvas, int(13 - 3 * layer), foot, 0.012 + 0.028 * near, colour)
        green = mist * (0.75 - 0.2 * near) * (1 - near) + canvas.vary((0.16, 0.34, 0.10)) * near
        leaves = np.clip((canvas.noise((7, 7), 4) - 0.48 + 0.9 * (0.30 - 0.05 * near - canvas.y)) * 8, 0, 1)
        canvas.paint(leaves * 0.9, green)
        line = foot + 0.012 * canvas.hills(2) - 0.02
        canvas.paint(canvas.below(line, 0.02), floor * near + mist * 0.6 * (1 - near))
    grass(canvas, np.full(canvas.side, ground + 0.06, np.float32), floor * 1.35, floor * 0.7)
    if canvas.chance(0.5):
        _path(canvas, ground + 0.07, canvas.vary((0.55, 0.42, 0.27)))
    scatter(canvas, ground + 0.1, 70, 0.012, [floor * 1.6, floor * 0.7, np.array((0.5, 0.36, 0.2))])
    if canvas.chance(0.6):
        _rays(canvas, canvas.between(-0.2, 1.0))
    return Place((ground + 0.18, 0.95), (0.96, 1.0, 0.88), canvas.between(-0.6, 0.6))


def _trunks(canvas: Canvas, count: int, foot: float, width: float, colour: np.ndarray) -> None:
    places = canvas.random.uniform(-0.03, 1.03, count)
    shapes = []
    for x in places:
        half, lean = width * canvas.between(0.35, 0.65), canvas.between(-0.02, 0.02)
        low = foot + canvas.between(-0.01, 0.03)
        shapes.append(
            [(x - half * 1.3, low), (x - half * 0.8 + lean, 0), (x + half * 0.8 + lean, 0), (x + half * 1.3, low)]
        )
    mask = canvas.polygons(shapes)
    canvas.paint(mask, colour)
    canvas.shade(1 - mask * np.clip(mask - np.roll(mask, canvas.side // 90, axis=1), 0, 1) * 0.3)


def _path(canvas: Canvas, top: float, colour: np.ndarray) -> None:
    middle, bend = canvas.between(0.35, 0.65), canvas.between(-0.2, 0.2)
    depth = np.clip((canvas.y - top) / (1 - top), 0, 1)
    centre = middle + bend * depth * (1 - depth) * 2
    width = 0.02 + 0.22 * depth
    mask = np.clip((width - np.abs(canvas.x - centre)) * 40, 0, 1) * canvas.below(top)
    canvas.paint(mask * 0.9, colour * (0.85 + 0.3 * canvas.noise((14, 9), 2))[..., None])


def _rays(canvas: Canvas, start: float) -> None:
    slope = canvas.between(-0.6, 0.6)
    across = canvas.x - start - slope * canvas.y
    beams = np.clip(np.sin(across * canvas.between(18, 30)) - 0.3, 0, 1) * np.clip(0.75 - canvas.y, 0, 1)
    canvas.glow(beams * 0.45, (1.0, 0.96, 0.72))


def mountains(canvas: Canvas) -> Place:
    """Rocky ridges with snow on the tops, foothills and a lake or meadow before them."""
    horizon = canvas.between(0.56, 0.66)
    _, light = sky(canvas, horizon, ("noon", "day", "morning", "evening"))
    side = canvas.pick((-0.8, 0.8))
    rock = canvas.vary(canvas.pick(((0.42, 0.44, 0.52), (0.50, 0.44, 0.40), (0.36, 0.40, 0.44))), 0.05)
    white = canvas.between(0.02, 0.12)
    for step, (height, cells) in enumerate(((0.30, 3), (0.20, 4))):
        line = horizon - height + 0.15 * (1 - 0.3 * step) * canvas.profile(canvas.between(cells, cells + 1.5), 6, 0.52)
        _ridge(canvas, line, rock * (1.1 - 0.2 * step) + 0.08 * (1 - step), side, white - 0.06 * step)
    foot = horizon - 0.03 + 0.03 * canvas.profile(5, 5, 0.6)
    canvas.paint(canvas.below(foot), canvas.vary((0.20, 0.34, 0.24)))
    line = horizon + 0.06 + 0.015 * canvas.hills(0.8)
    grass(canvas, line, canvas.vary((0.48, 0.60, 0.30)), canvas.vary((0.27, 0.44, 0.18)))
    trees = [
        fir(canvas, canvas.between(0, 1), canvas.between(horizon + 0.05, horizon + 0.1), canvas.between(0.06, 0.13))
        for _ in range(14)
    ]
    canvas.paint(canvas.polygons([shape for shapes in trees for shape in shapes]), canvas.vary((0.10, 0.24, 0.15)))
    scatter(canvas, horizon + 0.15, 40, 0.012, [np.array((0.6, 0.6, 0.6)), np.array((0.45, 0.45, 0.47))])
    return Place((horizon + 0.2, 0.96), tuple(light), side)


def _ridge(canvas: Canvas, line: np.ndarray, rock: np.ndarray, side: float, snow: float) -> None:
    """A ridge with a light and a dark side of each peak, and snow down to a ragged line."""
    cover = canvas.below(line)
    facets = canvas.noise((7, 9), 4) + 0.5 * canvas.noise((4, 13), 3)
    slope = np.clip((np.roll(facets, 2, axis=1) - facets) * 26 * side, -1, 1)
    canvas.paint(cover, rock * (0.95 + 0.33 * slope)[..., None])
    edge = line[None, :] + snow + 0.16 * (canvas.noise((6, 18), 3) - 0.5)
    cap = np.clip((edge - canvas.y) * 60, 0, 1) * cover
    canvas.paint(cap * 0.95, np.array((0.95, 0.97, 1.0)) * (0.88 + 0.14 * slope)[..., None])


def desert(canvas: Canvas) -> Place:
    """Dunes with a light and a dark flank under a hot sky, cacti or pyramids."""
    horizon = canvas.between(0.38, 0.52)
    hour = canvas.pick(((0.35, 0.62, 0.92), (0.50, 0.68, 0.88), (0.90, 0.66, 0.42)))
    canvas.paint(1.0, canvas.gradient(canvas.vary(hour), canvas.vary((0.99, 0.88, 0.66)), 0, horizon))
    side = canvas.pick((-0.8, 0.8))
    if canvas.chance(0.6):
        sun(canvas, 0.5 + side * 0.38, canvas.between(0.1, 0.2), canvas.between(0.04, 0.06))
    sand = canvas.vary(canvas.pick(((0.93, 0.72, 0.42), (0.90, 0.62, 0.36), (0.95, 0.79, 0.52))))
    if canvas.chance(0.35):
        _pyramids(canvas, horizon + 0.03, sand, side)
    for step in range(int(canvas.between(2, 4.9))):
        _dune(canvas, horizon + 0.02 + 0.12 * step**1.25, sand * (0.98 - 0.03 * step), side)
    ripples = np.sin((canvas.y * 60 + 5 * canvas.noise((5, 3), 2)) * 2 * np.pi * canvas.between(0.35, 0.5))
    canvas.shade(1 + 0.05 * ripples * canvas.below(horizon + 0.3, 0.2) + 0.04 * canvas.grain() * canvas.below(horizon))
    if canvas.chance(0.65):
        for _ in range(int(canvas.between(1, 4))):
            _cactus(
                canvas,
                canvas.pick((canvas.between(0.04, 0.25), canvas.between(0.75, 0.96))),
                canvas.between(0.1, 0.24),
                horizon,
            )
    return Place((horizon + 0.3, 0.95), (1.0, 0.95, 0.82), side)


def _dune(canvas: Canvas, height: float, sand: np.ndarray, side: float) -> None:
    line = height + 0.055 * canvas.hills(canvas.between(0.6, 1.3))
    cover = canvas.below(line)
    slope = np.gradient(line)[None, :] * canvas.side * 4 * side
    flank = np.clip(0.95 - 0.55 * np.clip(slope, -0.25, 0.45), 0.7, 1.1)
    depth = np.clip((canvas.y - line[None, :]) / 0.11, 0, 1) ** 0.7
    canvas.paint(cover, sand * (flank * (1 - depth) + 0.97 * depth)[..., None])


def _pyramids(canvas: Canvas, foot: float, sand: np.ndarray, side: float) -> None:
    for _ in range(int(canvas.between(1, 3.5))):
        x, tall = canvas.between(0.15, 0.85), canvas.between(0.10, 0.2)
        ridge = x + 0.25 * tall * side
        canvas.paint(canvas.polygons([[(x - tall, foot), (x, foot - tall), (x + tall, foot)]]), sand * 0.92)
        edge = x + tall if side < 0 else x - tall
        canvas.paint(canvas.polygons([[(edge, foot), (x, foot - tall), (ridge, foot)]]), sand * 0.66)


def _cactus(canvas: Canvas, x: float, tall: float, horizon: float) -> None:
    foot, wide = horizon + 0.12 + tall * 0.9, tall * 0.2
    arm, low = tall * 0.32, foot - tall * 0.4
    lines = [
        [(x, foot), (x, foot - tall)],
        [(x, low), (x - arm, low), (x - arm, low - tall * 0.3)],
        [(x, low - tall * 0.1), (x + arm, low - tall * 0.1), (x + arm, low - tall * 0.42)],
    ]
    ends = [(x, foot - tall), (x - arm, low - tall * 0.3), (x + arm, low - tall * 0.42)]
    mask = np.maximum(canvas.strokes(lines, wide), canvas.ellipses([(a, b, wide / 2, wide / 2) for a, b in ends]))
    canvas.paint(canvas.disc(x, foot, tall * 0.45, tall * 0.3, 0.2) * 0.35, (0.35, 0.22, 0.12))
    green = canvas.vary((0.22, 0.46, 0.24))
    canvas.paint(mask, green * (0.85 + 0.25 * np.sin(canvas.x * 2 * np.pi / wide * 2.5))[..., None])


def snow(canvas: Canvas) -> Place:
    """White hills with blue shadows, firs under snow, flakes."""
    horizon = canvas.between(0.40, 0.52)
    top = canvas.pick(((0.52, 0.70, 0.90), (0.70, 0.77, 0.85), (0.62, 0.66, 0.86)))
    low = canvas.pick(((0.90, 0.94, 0.98), (0.98, 0.90, 0.88)))
    canvas.paint(1.0, canvas.gradient(canvas.vary(top), low, 0, horizon))
    for step in range(3):
        near = step / 2
        line = horizon - 0.04 + 0.09 * step + 0.035 * canvas.hills(canvas.between(0.7, 1.5))
        white = np.array((0.84, 0.89, 0.96)) * (1 - near) + np.array((0.97, 0.98, 1.0)) * near
        cover = canvas.below(line)
        depth = np.clip((canvas.y - line[None, :]) / 0.2, 0, 1)
        canvas.paint(cover, white * (1 - 0.13 * depth * (1 - 0.3 * near))[..., None] + np.array((0, 0, 0.03)))
        for _ in range(5 - step):
            x, tall = canvas.between(0.02, 0.98), canvas.between(0.10, 0.17) * (1 + near)
            if step == 2:
                x = canvas.pick((canvas.between(0, 0.2), canvas.between(0.8, 1)))
            _snowy_fir(canvas, x, float(line[int(x * canvas.side) % canvas.side]) + 0.02, tall, near)
    drift = canvas.noise((10, 4), 3) - 0.5
    canvas.shade(1 - 0.22 * np.clip(drift, 0, 1) * canvas.below(horizon + 0.1, 0.1))
    if canvas.chance(0.7):
        flakes(canvas, int(canvas.between(40, 220)))
    return Place((horizon + 0.28, 0.95), (0.95, 0.98, 1.0), canvas.between(-0.6, 0.6))


def _snowy_fir(canvas: Canvas, x: float, foot: float, tall: float, near: float) -> None:
    shapes = fir(canvas, x, foot, tall)
    far = np.array((0.45, 0.58, 0.62)) * (1 - near) + np.array((0.12, 0.30, 0.24)) * near
    canvas.paint(canvas.disc(x, foot, tall * 0.4, tall * 0.3, 0.25) * 0.4, (0.55, 0.65, 0.82))
    canvas.paint(canvas.polygons(shapes), canvas.vary(far, 0.03))
    canvas.paint(canvas.polygons([_snow_cap(*shape) for shape in shapes[1:]]) * 0.95, (0.96, 0.98, 1.0))


def _snow_cap(*tier: tuple[float, float]) -> list[tuple[float, float]]:
    """The upper part of a fir's tier (left, top, right, middle)."""
    left, top, right, middle = tier
    towards = lambda a, b, share: (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]))  # noqa: E731
    return [towards(left, top, 0.25), top, towards(right, top, 0.3), towards(top, middle, 0.45)]


def autumn(canvas: Canvas) -> Place:
    """A park in autumn: orange and red trees, a path, fallen leaves."""
    horizon = canvas.between(0.46, 0.56)
    _, light = sky(canvas, horizon, ("day", "grey", "morning"))
    leaves = [(0.90, 0.45, 0.10), (0.85, 0.25, 0.10), (0.95, 0.68, 0.15), (0.72, 0.34, 0.10)]
    for x in np.linspace(-0.02, 1.02, 9):
        crown(
            canvas,
            x,
            horizon - canvas.between(0.03, 0.10),
            canvas.between(0.08, 0.13),
            np.array(canvas.vary(canvas.pick(leaves), 0.05)) * 0.8 + 0.15,
            40,
        )
    lawn = canvas.vary((0.62, 0.56, 0.22))
    grass(canvas, np.full(canvas.side, horizon + 0.03, np.float32), lawn, lawn * 0.75)
    _path(canvas, horizon + 0.04, canvas.vary((0.72, 0.64, 0.52)))
    for x, tall in (
        (canvas.between(0.02, 0.2), canvas.between(0.5, 0.66)),
        (canvas.between(0.8, 0.98), canvas.between(0.44, 0.62)),
    ):
        tree(canvas, x, horizon + canvas.between(0.10, 0.18), tall, canvas.vary(canvas.pick(leaves)))
    scatter(canvas, horizon + 0.07, int(canvas.between(200, 420)), 0.014, leaves)
    return Place((horizon + 0.24, 0.95), tuple(light * np.array((1.0, 0.96, 0.88))), canvas.between(-0.6, 0.6))
