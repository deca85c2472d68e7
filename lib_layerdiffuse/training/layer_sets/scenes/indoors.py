"""Painters of rooms: a living room, a kitchen, a theatre's stage."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Place

WALLS: tuple[Colour, ...] = (
    (0.92, 0.88, 0.78),
    (0.72, 0.82, 0.80),
    (0.80, 0.72, 0.80),
    (0.90, 0.76, 0.66),
    (0.66, 0.74, 0.86),
    (0.76, 0.84, 0.68),
)
WOODS: tuple[Colour, ...] = ((0.62, 0.42, 0.25), (0.74, 0.56, 0.36), (0.50, 0.34, 0.22), (0.82, 0.68, 0.48))


def room(canvas: Canvas) -> Place:
    """A wall with a window and a picture, floor boards, a rug, a lamp."""
    foot = canvas.between(0.60, 0.68)
    wall = canvas.vary(canvas.pick(WALLS))
    canvas.paint(1.0, canvas.gradient(wall, wall * 0.93, 0, foot))
    if canvas.chance(0.4):
        canvas.shade(1 - 0.06 * (np.floor(canvas.x * canvas.pick((12, 18))) % 2) * np.ones_like(canvas.y))
    _boards(canvas, foot, canvas.vary(canvas.pick(WOODS)))
    canvas.paint(canvas.box(-0.1, foot - 0.03, 1.1, foot), np.clip(wall * 0.6 + 0.4, 0, 1))
    canvas.shade(1 - 0.3 * np.exp(-(((canvas.y - foot) / 0.012) ** 2)) * canvas.below(foot))
    side = canvas.pick((-1, 1))
    _window(canvas, 0.5 + side * canvas.between(0.14, 0.24), canvas.between(0.10, 0.16))
    _picture(canvas, 0.5 - side * canvas.between(0.2, 0.3), canvas.between(0.14, 0.22))
    if canvas.chance(0.6):
        rug = np.array(
            canvas.vary(canvas.pick(((0.72, 0.25, 0.25), (0.25, 0.42, 0.62), (0.80, 0.66, 0.42), (0.35, 0.52, 0.42))))
        )
        canvas.paint(canvas.disc(0.5, 0.86, 0.40, 0, 0.26), rug)
        canvas.paint(
            canvas.disc(0.5, 0.86, 0.34, 0, 0.24) - canvas.disc(0.5, 0.86, 0.31, 0, 0.23), np.clip(rug + 0.25, 0, 1)
        )
    if canvas.chance(0.5):
        _floor_lamp(canvas, 0.5 - side * 0.40, foot + 0.08)
    return Place((foot + 0.12, 0.95), (1.0, 0.98, 0.93), side * 0.6)


def _boards(canvas: Canvas, foot: float, wood: np.ndarray) -> None:
    """Floor boards that run to a point behind the wall."""
    cover = canvas.below(foot)
    depth = canvas.y - foot + 0.30
    across = (canvas.x - 0.5) / depth
    board = np.floor(across * 9)
    tint = 0.88 + 0.2 * ((np.sin(board * 12.9898) * 43758.5453) % 1)
    edge = np.clip(1 - np.minimum((across * 9) % 1, 1 - (across * 9) % 1) * 16, 0, 1)
    grain = 0.12 * (canvas.noise((30, 6), 2) - 0.5)
    canvas.paint(cover, wood * (tint * (1 - 0.35 * edge) + grain)[..., None])


def _window(canvas: Canvas, x: float, top: float) -> None:
    wide, tall = canvas.between(0.13, 0.17), canvas.between(0.30, 0.36)
    above, below = canvas.pick(
        (
            ((0.40, 0.66, 0.92), (0.85, 0.93, 0.98)),
            ((0.95, 0.70, 0.50), (0.98, 0.86, 0.70)),
            ((0.05, 0.07, 0.20), (0.14, 0.18, 0.36)),
        )
    )
    canvas.paint(canvas.box(x - wide - 0.018, top - 0.018, x + wide + 0.018, top + tall + 0.018), (0.97, 0.97, 0.95))
    pane = canvas.box(x - wide, top, x + wide, top + tall)
    canvas.paint(pane, canvas.gradient(above, below, top, top + tall))
    canvas.paint(
        pane * canvas.below(top + tall * 0.8 + 0.02 * canvas.hills(2)),
        np.array(above) * 0.3 + np.array((0.1, 0.25, 0.1)),
    )
    canvas.paint(canvas.box(x - 0.007, top, x + 0.007, top + tall), (0.97, 0.97, 0.95))
    canvas.paint(canvas.box(x - wide, top + tall * 0.5 - 0.006, x + wide, top + tall * 0.5 + 0.006), (0.97, 0.97, 0.95))
    canvas.paint(
        canvas.box(x - wide - 0.035, top + tall + 0.01, x + wide + 0.035, top + tall + 0.03), (0.88, 0.88, 0.86)
    )
    if canvas.chance(0.6):
        cloth = canvas.vary(
            canvas.pick(((0.80, 0.30, 0.28), (0.95, 0.93, 0.86), (0.30, 0.45, 0.55), (0.90, 0.72, 0.35)))
        )
        folds = (0.85 + 0.15 * np.sin(canvas.x * 2 * np.pi * 42))[..., None]
        for way in (-1, 1):
            left, right = sorted((x + way * (wide + 0.05), x + way * (wide - 0.05)))
            canvas.paint(canvas.box(left, top - 0.035, right, top + tall + 0.06), cloth * folds)


def _picture(canvas: Canvas, x: float, top: float) -> None:
    wide, tall = canvas.between(0.07, 0.11), canvas.between(0.12, 0.18)
    canvas.paint(canvas.box(x - wide, top, x + wide, top + tall), canvas.vary(canvas.pick(WOODS)) * 0.7)
    inner = canvas.box(x - wide + 0.014, top + 0.014, x + wide - 0.014, top + tall - 0.014)
    canvas.paint(
        inner,
        canvas.gradient(
            canvas.vary((0.75, 0.85, 0.92), 0.15),
            canvas.vary((0.5, 0.62, 0.4), 0.2),
            top + tall * 0.4,
            top + tall * 0.6,
        ),
    )


def _floor_lamp(canvas: Canvas, x: float, foot: float) -> None:
    canvas.paint(canvas.strokes([[(x, foot), (x, foot - 0.40)]], 0.012), (0.22, 0.2, 0.2))
    canvas.paint(canvas.ellipses([(x, foot, 0.05, 0.014)]), (0.22, 0.2, 0.2))
    canvas.glow(canvas.halo(x, foot - 0.40, 0.28, 2) * 0.5, (1.0, 0.88, 0.6))
    canvas.paint(
        canvas.polygons(
            [[(x - 0.035, foot - 0.48), (x + 0.035, foot - 0.48), (x + 0.07, foot - 0.35), (x - 0.07, foot - 0.35)]]
        ),
        (0.99, 0.90, 0.68),
    )


def kitchen(canvas: Canvas) -> Place:
    """A wooden table before a tiled wall with a shelf, jars and hanging pans."""
    edge = canvas.between(0.56, 0.64)
    tile, joint = (
        canvas.vary(canvas.pick(((0.93, 0.94, 0.92), (0.72, 0.84, 0.86), (0.95, 0.89, 0.74), (0.78, 0.87, 0.76)))),
        canvas.pick((9, 11)),
    )
    canvas.paint(1.0, tile)
    seams = [np.clip((np.abs((axis * joint) % 1 - 0.5) - 0.455) * 40, 0, 1) for axis in (canvas.x, canvas.y)]
    canvas.paint(np.maximum(*seams) * 0.7, tile * 0.78)
    canvas.shade(0.94 + 0.1 * canvas.noise((4, 4), 1))
    _shelf(canvas, canvas.between(0.28, 0.34))
    if canvas.chance(0.7):
        _pans(canvas, 0.04)
    wood = canvas.vary(canvas.pick(WOODS))
    canvas.paint(canvas.below(edge - 0.05, 0.06) * 0.35, tile * 0.4)
    grain = canvas.noise((canvas.between(50, 80), canvas.between(2, 4)), 2) - 0.5
    canvas.paint(canvas.below(edge), wood * (1.05 + 0.5 * grain - 0.25 * (canvas.y - edge))[..., None])
    canvas.paint(canvas.box(-0.1, edge - 0.004, 1.1, edge + 0.008), np.clip(wood * 1.35, 0, 1))
    for line in (0.14, 0.27):
        canvas.paint(canvas.box(-0.1, edge + line, 1.1, edge + line + 0.005) * 0.6, wood * 0.55)
    return Place((edge + 0.14, 0.94), (1.0, 0.97, 0.92), canvas.between(-0.6, 0.6))


def _shelf(canvas: Canvas, level: float) -> None:
    colours: list[Colour] = [
        (0.80, 0.25, 0.2),
        (0.95, 0.8, 0.35),
        (0.3, 0.5, 0.35),
        (0.92, 0.92, 0.88),
        (0.35, 0.45, 0.65),
        (0.75, 0.5, 0.3),
    ]
    x = canvas.between(0.03, 0.1)
    while x < 0.92:
        wide, tall = canvas.between(0.05, 0.09), canvas.between(0.07, 0.14)
        body = canvas.vary(canvas.pick(colours))
        canvas.block((x, level - tall, x + wide, level), body)
        canvas.block((x + wide * 0.12, level - tall, x + wide * 0.25, level - 0.01), np.clip(body + 0.3, 0, 1), 0.5)
        canvas.block((x - 0.004, level - tall - 0.02, x + wide + 0.004, level - tall), body * 0.6)
        x += wide + canvas.between(0.02, 0.12)
    wood = canvas.vary(canvas.pick(WOODS))
    canvas.paint(canvas.box(-0.1, level, 1.1, level + 0.026), wood)
    canvas.shade(1 - 0.25 * canvas.box(-0.1, level + 0.026, 1.1, level + 0.05))


def _pans(canvas: Canvas, top: float) -> None:
    level = canvas.between(0.36, 0.40)
    for x in np.arange(canvas.between(0.08, 0.2), 0.95, canvas.between(0.18, 0.26)):
        size = canvas.between(0.03, 0.05)
        metal = canvas.vary(canvas.pick(((0.35, 0.36, 0.38), (0.72, 0.42, 0.25), (0.6, 0.62, 0.65))))
        canvas.paint(canvas.strokes([[(x, level), (x, level + 0.08)]], 0.012), metal * 0.7)
        canvas.paint(canvas.disc(x, level + 0.08 + size, size), metal)
        canvas.paint(
            canvas.disc(x - size * 0.2, level + 0.08 + size * 0.8, size * 0.6, size * 0.5) * 0.4,
            np.clip(metal + 0.3, 0, 1),
        )


def stage(canvas: Canvas) -> Place:
    """A theatre's stage: red curtains, boards, a spotlight."""
    foot = canvas.between(0.68, 0.76)
    cloth = canvas.vary(canvas.pick(((0.62, 0.06, 0.09), (0.55, 0.04, 0.14), (0.30, 0.08, 0.40), (0.08, 0.20, 0.45))))
    back = cloth * canvas.between(0.35, 0.6)
    folds = np.sin(canvas.x * 2 * np.pi * canvas.between(9, 13) + 0.6 * np.sin(canvas.y * 5))
    canvas.paint(1.0, back * (1 + 0.35 * folds)[..., None] * np.ones_like(canvas.y)[..., None])
    _boards(canvas, foot, canvas.vary(canvas.pick(WOODS[:3])) * 0.85)
    x = canvas.between(0.35, 0.65)
    cone = np.clip((0.06 + 0.36 * canvas.y - np.abs(canvas.x - x)) * 8, 0, 1) * (1 - canvas.below(foot + 0.18))
    canvas.glow(cone * 0.22, (1.0, 0.95, 0.8))
    canvas.glow(canvas.disc(x, foot + 0.13, 0.36, 0.12, 0.3) * 0.4, (1.0, 0.94, 0.75))
    canvas.shade(1 - 0.5 * (1 - cone) * np.clip(np.abs(canvas.x - x) * 1.3, 0, 1))
    for way in (-1, 1):
        reach = 0.16 + 0.06 * np.cos(canvas.y * 4)
        edge = canvas.x if way < 0 else 1 - canvas.x
        mask = np.clip((reach - edge) * 60, 0, 1)
        canvas.paint(mask, cloth * (1 + 0.4 * np.sin(canvas.x * 2 * np.pi * 22))[..., None])
    swags = 0.10 + 0.045 * np.abs(np.sin(canvas.x[0] * np.pi * 4))
    canvas.paint(1 - canvas.below(swags), cloth * 1.15)
    canvas.paint((1 - canvas.below(swags)) * canvas.below(swags - 0.018), (0.90, 0.72, 0.28))
    return Place((foot + 0.08, 0.95), (1.0, 0.96, 0.86), 2 * x - 1)
