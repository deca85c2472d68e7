"""Painters of scenes by, on and under the sea."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Place
from .parts import clouds, glitter, sky, sun, water

SEAS: tuple[tuple[Colour, Colour], ...] = (
    ((0.16, 0.42, 0.66), (0.12, 0.66, 0.72)),
    ((0.10, 0.30, 0.56), (0.08, 0.46, 0.66)),
    ((0.22, 0.52, 0.70), (0.35, 0.78, 0.78)),
)


def beach(canvas: Canvas) -> Place:
    """Sand, a line of foam, the sea and the sky; a palm, a parasol or a sail now and then."""
    horizon, shore = canvas.between(0.28, 0.40), canvas.between(0.50, 0.60)
    _, light = sky(canvas, horizon, ("noon", "day", "day", "morning", "evening"))
    side = canvas.pick((-0.7, 0.7))
    if canvas.chance(0.4):
        sun(canvas, 0.5 + side * 0.4, canvas.between(0.07, 0.18), 0.04)
    far, near = canvas.pick(SEAS)
    water(canvas, horizon, canvas.vary(far), canvas.vary(near))
    if canvas.chance(0.4):
        _sail(canvas, canvas.between(0.15, 0.85), horizon + 0.015, canvas.between(0.06, 0.11))
    _sand(canvas, shore, np.array(near))
    if canvas.chance(0.45):
        _palm(canvas, canvas.pick((0.08, 0.14, 0.86, 0.92)), canvas.between(0.62, 0.72))
    elif canvas.chance(0.45):
        _parasol(canvas, canvas.pick((0.14, 0.2, 0.8, 0.86)), canvas.between(0.62, 0.72))
    shells: list[Colour] = [(0.98, 0.90, 0.82), (0.85, 0.6, 0.5), (0.62, 0.5, 0.4)]
    scatter = canvas.random.uniform((0, shore + 0.15), (1, 1), (14, 2))
    inks = np.array(shells)[canvas.random.integers(0, 3, 14)]
    canvas.spots(scatter, inks, canvas.random.uniform(0.003, 0.009, (14, 2)))
    return Place((shore + 0.17, 0.95), tuple(light), side)


def _sand(canvas: Canvas, shore: float, sea: np.ndarray) -> None:
    """Sand below a slanted, wavy shore line: foam, wet sand, dry sand."""
    line = shore + canvas.between(-0.1, 0.1) * (canvas.x[0] - 0.5) + 0.022 * canvas.hills(canvas.between(1.2, 2.4))
    sand = canvas.vary(canvas.pick(((0.94, 0.84, 0.62), (0.96, 0.88, 0.72), (0.90, 0.78, 0.55))))
    shallow = np.clip(1 - (line[None, :] - canvas.y) / 0.12, 0, 1) * (1 - canvas.below(line))
    canvas.paint(shallow * 0.6, sea * 0.6 + np.array((0.30, 0.36, 0.34)))
    canvas.paint(canvas.below(line), canvas.gradient(sand, sand * 0.93, shore, 1))
    wet = canvas.below(line) * (1 - canvas.below(line + 0.05, 0.03))
    canvas.paint(wet * 0.7, sand * np.array((0.70, 0.70, 0.72)))
    foam = np.clip(1 - np.abs(canvas.y - line[None, :]) / (0.012 + 0.012 * canvas.noise((2, 12), 2)), 0, 1)
    canvas.paint(np.clip(foam * 1.6, 0, 1), (0.98, 1.0, 1.0))
    dunes = canvas.noise((9, 4), 3) - 0.5
    canvas.shade(1 + canvas.below(line + 0.04) * (0.10 * dunes + 0.05 * canvas.grain()))


def _sail(canvas: Canvas, x: float, foot: float, tall: float) -> None:
    hull = [
        (x - tall * 0.4, foot - tall * 0.12),
        (x + tall * 0.42, foot - tall * 0.12),
        (x + tall * 0.28, foot),
        (x - tall * 0.28, foot),
    ]
    sails = [
        [(x, foot - tall), (x, foot - tall * 0.18), (x + tall * 0.42, foot - tall * 0.18)],
        [
            (x - tall * 0.04, foot - tall * 0.9),
            (x - tall * 0.04, foot - tall * 0.18),
            (x - tall * 0.3, foot - tall * 0.18),
        ],
    ]
    canvas.paint(canvas.polygons(sails), canvas.pick(((0.98, 0.98, 0.97), (0.95, 0.45, 0.35))))
    canvas.paint(canvas.polygons([hull]), canvas.pick(((0.45, 0.25, 0.15), (0.2, 0.25, 0.4))))


def _palm(canvas: Canvas, x: float, foot: float) -> None:
    lean = 0.10 if x < 0.5 else -0.10
    tall = canvas.between(0.40, 0.52)
    steps = np.linspace(0, 1, 8)
    trunk = [(x + lean * t**2, foot - tall * t) for t in steps]
    canvas.paint(canvas.strokes([trunk], 0.026), canvas.vary((0.48, 0.35, 0.22)))
    top, fronds = trunk[-1], []
    for angle in np.linspace(-0.3, np.pi + 0.3, 9) + canvas.between(-0.15, 0.15):
        reach = canvas.between(0.15, 0.21)
        tip = (top[0] + reach * np.cos(angle), top[1] - reach * 0.55 * np.sin(angle) + 0.07)
        middle = (top[0] + reach * 0.55 * np.cos(angle), top[1] - reach * 0.55 * np.sin(angle) - 0.02)
        fronds.append([top, (middle[0], middle[1] - 0.02), tip, (middle[0], middle[1] + 0.022)])
    canvas.paint(canvas.polygons(fronds[::2]), canvas.vary((0.16, 0.42, 0.18)))
    canvas.paint(canvas.polygons(fronds[1::2]), canvas.vary((0.26, 0.56, 0.22)))


def _parasol(canvas: Canvas, x: float, foot: float) -> None:
    tall, wide = canvas.between(0.24, 0.3), canvas.between(0.13, 0.17)
    canvas.paint(canvas.strokes([[(x, foot), (x, foot - tall)]], 0.012), (0.93, 0.93, 0.9))
    dome = canvas.disc(x, foot - tall * 0.62, wide, 0, 0.75) * (1 - canvas.below(foot - tall * 0.62))
    colour = np.array(canvas.pick(((0.90, 0.22, 0.2), (0.16, 0.45, 0.8), (0.98, 0.75, 0.15))))
    stripes = np.floor((canvas.x - x + wide) / (2 * wide) * 6) % 2
    canvas.paint(dome, colour * stripes[..., None] + np.array((0.98, 0.97, 0.95)) * (1 - stripes[..., None]))


def sea(canvas: Canvas) -> Place:
    """Nothing but water and sky; an island, a sail or gulls now and then."""
    horizon = canvas.between(0.34, 0.50)
    hour, light = sky(canvas, horizon, ("noon", "day", "grey", "morning"))
    place = canvas.between(0.15, 0.85)
    if canvas.chance(0.35):
        island = (
            horizon + 0.005 - 0.10 * np.clip(canvas.hills(1.2) * np.exp(-(((canvas.x[0] - place) / 0.18) ** 2)), 0, 1)
        )
        canvas.paint(canvas.below(island), canvas.vary((0.36, 0.46, 0.48)))
    far, near = canvas.pick(SEAS[:2])
    grey = 0.55 if hour == "grey" else 1.0
    water(
        canvas,
        horizon,
        canvas.vary(np.array(far) * grey + 0.3 * (1 - grey)),
        canvas.vary(np.array(near) * grey + 0.15 * (1 - grey)),
    )
    if canvas.chance(0.5):
        glitter(canvas, 1 - place, horizon, light * 0.7)
    if canvas.chance(0.4):
        _sail(canvas, 1 - place, horizon + 0.03, canvas.between(0.10, 0.18))
    crests = np.clip((canvas.noise((30, 8), 3) - 0.62) * 9, 0, 1) * canvas.below(horizon + 0.1, 0.1)
    canvas.paint(crests * 0.8, (0.95, 0.98, 1.0))
    return Place((horizon + 0.22, 0.9), tuple(light), 1 - 2 * place, floor=False)


def sunset(canvas: Canvas) -> Place:
    """A low sun in a burning sky over water or dark hills."""
    horizon = canvas.between(0.54, 0.66)
    top = canvas.vary(canvas.pick(((0.22, 0.16, 0.42), (0.42, 0.20, 0.46), (0.18, 0.26, 0.50), (0.62, 0.26, 0.30))))
    middle, low = canvas.vary((0.95, 0.45, 0.30)), canvas.vary((1.0, 0.80, 0.38))
    canvas.paint(1.0, canvas.gradient(top, middle, 0, horizon * 0.7))
    canvas.paint(canvas.below(horizon * 0.55, horizon * 0.8), low)
    if canvas.chance(0.8):
        clouds(canvas, horizon, canvas.pick(((0.80, 0.35, 0.38), (0.98, 0.62, 0.42), (0.42, 0.22, 0.40))), 0.5)
    x, radius = canvas.between(0.2, 0.8), canvas.between(0.07, 0.12)
    sun(canvas, x, horizon - radius * canvas.between(0.0, 0.9), radius, (1.0, 0.86, 0.42))
    if canvas.chance(0.6):
        water(canvas, horizon, middle * 0.8, top * 0.7)
        glitter(canvas, x, horizon, (1.0, 0.75, 0.35))
        if canvas.chance(0.4):
            line = horizon + 0.005 - 0.05 * np.clip(canvas.hills(1.5), 0, 1)
            canvas.paint(canvas.below(line) * (1 - canvas.below(horizon + 0.005)), top * 0.35)
        return Place((horizon + 0.12, 0.92), (1.0, 0.82, 0.62), 2 * x - 1, floor=False)
    for step in range(3):
        line = horizon - 0.02 + 0.10 * step + 0.04 * canvas.hills(canvas.between(0.8, 2))
        canvas.paint(canvas.below(line), top * (0.55 - 0.14 * step) + middle * (0.16 - 0.06 * step))
    return Place((horizon + 0.16, 0.94), (1.0, 0.82, 0.62), 2 * x - 1)


def underwater(canvas: Canvas) -> Place:
    """Blue depth with rays of light, bubbles, sand, coral and weed, small fish."""
    light, deep = (
        canvas.vary((0.42, 0.82, 0.90)),
        canvas.vary(canvas.pick(((0.02, 0.26, 0.50), (0.04, 0.36, 0.55), (0.02, 0.36, 0.48)))),
    )
    canvas.paint(1.0, canvas.gradient(light, deep, 0, 0.8))
    across = canvas.x - canvas.between(0.2, 0.8) + canvas.between(-0.5, 0.5) * canvas.y
    spread = across / (0.6 + canvas.y)
    rays = np.clip(np.sin(spread * 34) + 0.6 * np.sin(spread * 57 + 1), 0, 1.3) * np.clip(0.85 - canvas.y, 0, 1) ** 1.2
    canvas.glow(rays * 0.5, (0.7, 0.95, 1.0))
    floor = canvas.between(0.74, 0.84)
    for step in range(2):
        line = floor - 0.16 + 0.07 * step + 0.05 * canvas.profile(4, 4, 0.5)
        canvas.paint(canvas.below(line), deep * (0.9 - 0.25 * step))
    line = floor + 0.025 * canvas.hills(1.5)
    sand = canvas.vary((0.74, 0.76, 0.62)) * 0.75 + deep * 0.3
    caustics = np.abs(canvas.noise((14, 8), 2) - 0.5)
    canvas.paint(canvas.below(line), sand * (0.85 + 0.5 * np.clip(0.16 - caustics, 0, 1) / 0.16 * 0.6)[..., None])
    for _ in range(int(canvas.between(4, 9))):
        _weed(canvas, canvas.pick((canvas.between(0, 0.3), canvas.between(0.7, 1))), floor + canvas.between(0.02, 0.12))
    for _ in range(int(canvas.between(2, 5))):
        _coral(
            canvas, canvas.pick((canvas.between(0, 0.28), canvas.between(0.72, 1))), floor + canvas.between(0.04, 0.14)
        )
    for _ in range(int(canvas.between(2, 7))):
        _fish(canvas, canvas.between(0.05, 0.95), canvas.between(0.12, 0.6), canvas.between(0.02, 0.045))
    _bubbles(canvas)
    return Place((0.55, 0.95), (0.80, 0.96, 1.0), 0.0, floor=False)


def _weed(canvas: Canvas, x: float, foot: float) -> None:
    tall, sway = canvas.between(0.16, 0.4), canvas.between(0.015, 0.035)
    steps = np.linspace(0, 1, 12)
    phase = canvas.between(0, 6)
    line = [(x + sway * np.sin(phase + 6 * t) * t, foot - tall * t) for t in steps]
    colour = canvas.vary(canvas.pick(((0.12, 0.46, 0.28), (0.25, 0.52, 0.20), (0.10, 0.38, 0.34))))
    leaves = [(a, b, 0.018 * (1.1 - t), 0.024) for (a, b), t in zip(line, steps, strict=True)]
    canvas.paint(np.maximum(canvas.strokes([line], 0.016), canvas.ellipses(leaves)), colour)


def _coral(canvas: Canvas, x: float, foot: float) -> None:
    colour = canvas.vary(canvas.pick(((0.92, 0.40, 0.42), (0.95, 0.62, 0.35), (0.75, 0.40, 0.72), (0.95, 0.78, 0.45))))
    lines = []
    for angle in np.linspace(0.6, np.pi - 0.6, 5):
        reach = canvas.between(0.08, 0.15)
        tip = (x + reach * np.cos(angle), foot - reach * np.sin(angle))
        half = (x + 0.5 * reach * np.cos(angle), foot - 0.6 * reach * np.sin(angle))
        lines += [[(x, foot), half, tip], [half, (half[0] + 0.03, half[1] - 0.04)]]
    canvas.paint(canvas.strokes(lines, 0.022), colour)


def _fish(canvas: Canvas, x: float, y: float, size: float) -> None:
    way = canvas.pick((-1, 1))
    colour = canvas.vary(canvas.pick(((0.98, 0.70, 0.20), (0.95, 0.45, 0.25), (0.85, 0.9, 0.95), (0.98, 0.9, 0.3))))
    tail = [(x - way * size * 0.8, y), (x - way * size * 1.6, y - size * 0.5), (x - way * size * 1.6, y + size * 0.5)]
    canvas.paint(np.maximum(canvas.ellipses([(x, y, size, size * 0.5)]), canvas.polygons([tail])), colour)
    canvas.paint(canvas.ellipses([(x + way * size * 0.6, y - size * 0.1, size * 0.13, size * 0.13)]), (0.05, 0.05, 0.1))


def _bubbles(canvas: Canvas) -> None:
    for _ in range(int(canvas.between(8, 22))):
        x, y, radius = canvas.between(0, 1), canvas.between(0.05, 0.9), canvas.between(0.006, 0.018)
        ring = canvas.disc(x, y, radius) - canvas.disc(x, y, radius * 0.6) * 0.75
        canvas.glow(ring * 0.6, (0.85, 1.0, 1.0))
