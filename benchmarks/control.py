"""How closely pictures and layers follow a drawing with a ControlNet, in figures and in a picture for the docs.

    python benchmarks/control.py --picture docs/pictures/controlnet.png

Drawings are made here, in places and sizes of their own. Lines are found in a picture as in training.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from lib_layerdiffuse.api import generate, load
from lib_layerdiffuse.core.errors import LayerDiffuseError
from lib_layerdiffuse.core.picture.edges import followed
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost

SIDE = 128
Points = Sequence[tuple[float, float]]


def ellipse(centre: tuple[float, float], radii: tuple[float, float], part: tuple[float, float] = (0, 1)) -> Points:
    """Points on an ellipse, `part` of the way round from the right, clockwise."""
    turns = np.linspace(*part, 60) * 2 * math.pi
    return [(centre[0] + radii[0] * math.cos(t), centre[1] + radii[1] * math.sin(t)) for t in turns]


def house() -> list[Points]:
    """A house at the left."""
    wall = [(14, 62), (70, 62), (70, 112), (14, 112), (14, 62)]
    return [wall, [(8, 62), (42, 26), (76, 62)], [(34, 112), (34, 86), (50, 86), (50, 112)]]


def star() -> list[Points]:
    """A star of five points, tilted."""
    turns = [(0.3 + place * math.pi / 5, (46, 20)[place % 2]) for place in range(11)]
    return [[(72 + radius * math.cos(turn), 60 + radius * math.sin(turn)) for turn, radius in turns]]


def heart() -> list[Points]:
    """A wide heart."""
    turns = np.linspace(0, 2 * math.pi, 80)
    across = 64 + 51 * np.sin(turns) ** 3
    down = 60 - 31 * np.cos(turns) + 12 * np.cos(2 * turns) + 5 * np.cos(3 * turns)
    return [list(zip(across.tolist(), down.tolist(), strict=True))]


def mushroom() -> list[Points]:
    """A mushroom with a broad cap at the right."""
    return [[*ellipse((76, 58), (44, 34), (0.5, 1)), (32, 58)], [(66, 58), (62, 108), (92, 108), (88, 58)]]


def snowman() -> list[Points]:
    """Two balls of snow."""
    return [ellipse((50, 84), (32, 30)), ellipse((50, 38), (20, 18))]


def apple() -> list[Points]:
    """A small apple with a leaf, in the upper right."""
    return [ellipse((84, 56), (30, 28)), [(84, 30), (88, 16), (104, 12), (98, 24), (86, 26)]]


def umbrella() -> list[Points]:
    """An open umbrella."""
    return [[*ellipse((58, 58), (48, 40), (0.5, 1)), (10, 58)], [(58, 58), (58, 104), (50, 112), (42, 104)]]


def balloon() -> list[Points]:
    """A balloon on its string."""
    return [ellipse((40, 44), (28, 34)), [(40, 78), (46, 96), (38, 120)]]


DRAWINGS: dict[str, Callable[[], list[Points]]] = {
    "house": house,
    "star": star,
    "red heart": heart,
    "mushroom": mushroom,
    "snowman": snowman,
    "red apple": apple,
    "umbrella": umbrella,
    "red balloon": balloon,
}


def drawn(strokes: list[Points]) -> Image.Image:
    """White lines on black."""
    image = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    for points in strokes:
        pen.line(points, fill="white", width=1)
    return image


def tensor(image: Image.Image) -> torch.Tensor:
    """[1,3 or 4,H,W] in [0,1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


def on_board(image: Image.Image) -> Image.Image:
    """A picture on a checkerboard."""
    rows, columns = np.indices((SIDE, SIDE)) // 16
    board = Image.fromarray(np.where((rows + columns) % 2, 200, 160).astype(np.uint8)).convert("RGBA")
    return Image.alpha_composite(board, image.convert("RGBA")).convert("RGB")


RUNS = {"plain": {"transparent": False}, "single": {}, "joint": {"mode": "joint"}}


def columns_of(model: DiffusersHost, prompt: str, lines: Image.Image, strength: float) -> dict[str, Image.Image]:
    """Pictures of every run that the model's files allow, without and with the ControlNet, by name."""
    found: dict[str, Image.Image] = {}
    for name, settings in RUNS.items():
        for control in ({}, {"control_image": lines, "control_strength": strength}):
            try:
                pictures = generate(prompt, pipeline=model, seed=1, count=1, **settings, **control)
            except LayerDiffuseError as error:
                sys.stderr.write(f"note: {name}: {error}\n")
                break
            for picture in pictures:
                label = " ".join(filter(None, (name, picture.frame, "followed" if control else "")))
                found[label] = picture.image
    return found


def main() -> None:
    """Figures on the standard output, and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--picture", type=Path, help="a PNG of everything")
    parser.add_argument("--demo", type=Path, help="another demo model's folder")
    parser.add_argument("--scene", default="", help="such as 'on a beach', behind each thing")
    parser.add_argument("--strength", type=float, default=1.0)
    chosen = parser.parse_args()
    model = load(demo=chosen.demo)
    shares: dict[str, list[float]] = {}
    rows = []
    for thing, strokes in DRAWINGS.items():
        lines = drawn(strokes())
        pictures = columns_of(model, f"a {thing} {chosen.scene}".strip(), lines, chosen.strength)
        wanted = tensor(lines)[:, :1].round()
        for label, image in pictures.items():
            shares.setdefault(label, []).append(followed(wanted, tensor(image)))
        rows.append([lines, *map(on_board, pictures.values())])
    figures = {label: round(float(np.mean(values)), 3) for label, values in shares.items()}
    sys.stdout.write(json.dumps({"share of the lines that are followed": figures}, indent=2) + "\n")
    if chosen.picture:
        sheet = Image.new("RGB", (SIDE * max(map(len, rows)), SIDE * len(rows)))
        for down, row in enumerate(rows):
            for across, image in enumerate(row):
                sheet.paste(image, (SIDE * across, SIDE * down))
        sheet.save(chosen.picture)


if __name__ == "__main__":
    main()
