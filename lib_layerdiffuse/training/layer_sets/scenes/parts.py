"""What several scenes have in common: skies, clouds, sun, trees, water, houses, falling snow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .canvas import Canvas, Colour

# top, horizon and light of a sky by the hour
SKIES = {
    "noon": ((0.16, 0.42, 0.82), (0.70, 0.86, 0.97), (1.0, 0.98, 0.92)),
    "day": ((0.32, 0.60, 0.90), (0.80, 0.91, 0.97), (1.0, 0.97, 0.90)),
    "morning": ((0.45, 0.66, 0.90), (0.99, 0.89, 0.76), (1.0, 0.92, 0.78)),
    "grey": ((0.60, 0.66, 0.72), (0.84, 0.87, 0.89), (0.94, 0.96, 0.98)),
    "evening": ((0.30, 0.40, 0.70), (0.98, 0.74, 0.52), (1.0, 0.84, 0.66)),
}


def sky(canvas: Canvas, horizon: float, hours: tuple[str, ...]) -> tuple[str, np.ndarray]:
    """Sky from the top to `horizon`, with clouds in most cases; the hour and the colour of its light."""
    hour = canvas.pick(hours)
    top, low, light = SKIES[hour]
    canvas.paint(1.0, canvas.gradient(canvas.vary(top), canvas.vary(low, 0.02), 0, horizon))
    if canvas.chance(0.8):
        white = np.array(light) * (0.9 if hour == "grey" else 1.0)
        clouds(canvas, horizon, white, canvas.between(0.42, 0.62))
    return hour, np.array(light)


def clouds(canvas: Canvas, horizon: float, colour: Colour, cover: float) -> None:
    """Banks of cloud, flatter and fainter towards the horizon, shaded below."""
    cells = canvas.between(3, 6)
    field = canvas.noise((cells, canvas.between(0.35, 0.6) * cells), 4)
    bank = np.clip((field - (1 - cover)) * 5, 0, 1) * np.clip((horizon - canvas.y) / 0.25, 0, 1)
    lower = np.roll(field, -canvas.side // 40, axis=0)
    shadow = np.clip((lower - field) * 3 + 0.12, 0, 0.35)[..., None]
    canvas.paint(bank * 0.9, np.asarray(colour, np.float32) * (1 - shadow))


def sun(canvas: Canvas, x: float, y: float, radius: float, colour: Colour = (1.0, 0.95, 0.75)) -> None:
    """A disc of light with its glow."""
    canvas.glow(canvas.halo(x, y, radius * 7, 3) * 0.8, colour)
    canvas.paint(canvas.disc(x, y, radius, 0.01), np.clip(np.array(colour) + 0.15, 0, 1))


def water(canvas: Canvas, horizon: float, far: Colour, near: Colour, mask: np.ndarray | float = 1.0) -> None:
    """Water below `horizon`: waves that grow towards the viewer, with bright crests."""
    depth = np.clip((canvas.y - horizon) / (1 - horizon), 0, 1)
    cover = canvas.below(horizon) * mask
    canvas.paint(cover, canvas.gradient(far, near, horizon, 1))
    fine = canvas.noise((canvas.between(44, 60), canvas.between(9, 14)), 1)
    broad = canvas.noise((canvas.between(16, 24), canvas.between(3, 6)), 2)
    waves = fine * (1 - depth) + broad * depth - 0.5
    canvas.paint(cover * np.clip(-waves * 1.2, 0, 0.5), np.array(near) * 0.6)
    canvas.paint(cover * np.clip((waves - 0.17) * 3, 0, 0.55), np.array([0.93, 0.97, 1.0]))


def glitter(canvas: Canvas, x: float, horizon: float, colour: Colour) -> None:
    """The sun's track on water."""
    width = 0.04 + 0.16 * np.clip(canvas.y - horizon, 0, 1)
    track = np.exp(-(((canvas.x - x) / width) ** 2)) * canvas.below(horizon)
    sparkle = np.clip((canvas.noise((60, 14), 1) - 0.42) * 4, 0, 1)
    canvas.glow(track * (0.25 + 0.75 * sparkle), colour)


def fir(canvas: Canvas, x: float, foot: float, height: float) -> list[list[tuple[float, float]]]:
    """Polygons of a fir tree: tiers, and a trunk below them."""
    tiers = int(canvas.random.integers(3, 5))
    shapes = [[(x - height * 0.035, foot - height * 0.12), (x + height * 0.035, foot - height * 0.12),
               (x + height * 0.035, foot), (x - height * 0.035, foot)]]  # fmt: skip
    for tier in range(tiers):
        low, top = foot - height * (0.08 + 0.23 * tier), foot - height * min(1, 0.45 + 0.22 * tier)
        half = height * (0.30 - 0.062 * tier)
        shapes.append([(x - half, low), (x, top), (x + half, low), (x, low - height * 0.03)])
    return shapes


def crown(canvas: Canvas, x: float, y: float, radius: float, colour: Colour, count: int = 60) -> None:
    """A leafy crown: clumps of leaves, dark below and light above."""
    angle, reach = canvas.random.uniform(0, 2 * np.pi, count), np.sqrt(canvas.random.uniform(0, 1, count))
    places = np.stack([x + radius * reach * np.cos(angle), y + radius * 0.85 * reach * np.sin(angle)], 1)
    order = np.argsort(-places[:, 1])
    light = 0.62 + 0.55 * np.clip((y + radius - places[:, 1]) / (2 * radius), 0, 1)
    light += canvas.random.uniform(-0.08, 0.08, count)
    colours = np.asarray(colour)[None] * light[:, None] + canvas.random.uniform(-0.03, 0.03, (count, 3))
    sizes = radius * canvas.random.uniform(0.16, 0.30, (count, 1)) * np.array([[1.0, 0.85]])
    canvas.spots(places[order], colours[order], sizes[order])


def tree(canvas: Canvas, x: float, foot: float, height: float, colour: Colour) -> None:
    """A trunk with two branches and a leafy crown."""
    bark, half = canvas.vary((0.32, 0.22, 0.15)), height * 0.035
    middle = foot - height * 0.45
    canvas.paint(
        canvas.polygons([[(x - half, foot), (x - half * 0.6, middle), (x + half * 0.6, middle), (x + half, foot)]]),
        bark,
    )
    canvas.paint(
        canvas.strokes(
            [
                [(x, middle), (x - height * 0.16, foot - height * 0.68)],
                [(x, middle), (x + height * 0.15, foot - height * 0.7)],
            ],
            half,
        ),
        bark,
    )
    crown(canvas, x, foot - height * 0.68, height * 0.32, colour)


def grass(canvas: Canvas, line: np.ndarray, far: Colour, near: Colour) -> None:
    """Ground of grass below `line`: blades that grow longer towards the viewer."""
    cover = canvas.below(line)
    canvas.paint(cover, canvas.gradient(far, near, float(line.min()), 1))
    blades = canvas.noise((18, 90), 1) - 0.5
    patches = canvas.noise((7, 3), 2) - 0.5
    depth = np.clip((canvas.y - float(line.min())) / 0.6, 0.15, 1)
    canvas.picture *= (1 + cover * (0.55 * blades * depth + 0.35 * patches))[..., None]


def scatter(canvas: Canvas, top: float, count: int, size: float, colours: Sequence[Colour]) -> None:
    """Small things lying about below `top` (flowers, leaves), larger towards the viewer."""
    depth = canvas.random.uniform(0, 1, count) ** 0.8
    places = np.stack([canvas.random.uniform(0, 1, count), top + (1 - top) * depth], 1)
    order = np.argsort(depth)
    inks = np.array(colours, np.float32)[canvas.random.integers(0, len(colours), count)]
    inks = inks * canvas.random.uniform(0.85, 1.1, (count, 1))
    sizes = size * (0.25 + 0.75 * depth)[:, None] * canvas.random.uniform(0.7, 1.2, (count, 2))
    canvas.spots(places[order], inks[order], sizes[order])


def stars(canvas: Canvas, count: int, lowest: float = 1.0) -> None:
    """Stars of several sizes and tints."""
    places = canvas.random.uniform(0, 1, (count, 2)) * np.array([1.0, lowest])
    bright = canvas.random.uniform(0.4, 1, (count, 1)) ** 1.5
    colours = np.clip(bright * (np.array([[0.9, 0.92, 1.0]]) + canvas.random.uniform(-0.12, 0.1, (count, 3))), 0, 1)
    sizes = np.repeat(canvas.random.choice([0.002, 0.0035, 0.006], count, p=[0.6, 0.3, 0.1])[:, None], 2, 1)
    canvas.spots(places, colours, sizes)


def windows(
    canvas: Canvas, wall: tuple[float, float, float, float], lit: float, colours: tuple[Colour, Colour]
) -> None:
    """Rows of windows on a wall (left, top, right, bottom): dark and `lit` ones in two colours."""
    left, top, right, bottom = wall
    across, down = max(1, int((right - left) / 0.022)), max(1, int((bottom - top) / 0.034))
    stepx, stepy = (right - left) / across, (bottom - top) / down
    on = canvas.random.random((across, down)) < lit
    for i in range(across):
        for j in range(down):
            x, y = left + stepx * (i + 0.5), top + stepy * (j + 0.5)
            pane = (x - stepx * 0.3, y - stepy * 0.28, x + stepx * 0.3, y + stepy * 0.28)
            canvas.block(pane, colours[int(on[i, j])], 0.85)


def flakes(canvas: Canvas, count: int) -> None:
    """Falling snow."""
    places = canvas.random.uniform(0, 1, (count, 2))
    sizes = np.repeat(canvas.random.uniform(0.003, 0.009, (count, 1)), 2, 1)
    canvas.spots(places, np.ones((count, 3)), sizes)
