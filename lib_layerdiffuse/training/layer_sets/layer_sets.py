"""Layer sets: foreground, background and the blended picture, with captions for each, in one safetensors file.

The file holds `foreground` uint8 [N,4,S,S] (R,G,B padded under transparent pixels, A), `background` and `blended`
uint8 [N,3,S,S] and `caption` int32 [N,3], numbers of the lists of variants in the header's `captions`; the header also
holds `names`, `held_out` and `skipped`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image

from ...core.errors import InputError
from ..grids import checkered, image_grid
from ..pictures.set_files import open_set, save_set

FRAMES = ("foreground", "background", "blended")
LISTS = ("captions", "names", "held_out", "skipped")
Captions = list[list[list[str]]]  # [N][3 frames][variants], frames in the order of FRAMES


@dataclass
class LayerSet:
    """N sets of three layers of one size; `captions[i][frame]` is a list of variants."""

    foreground: torch.Tensor
    background: torch.Tensor
    blended: torch.Tensor
    captions: Captions
    names: list[str]
    held_out: list[bool]
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def part(self, held_out: bool) -> LayerSet:
        """The held-out or the training part, in the same order."""
        return self.select([i for i in range(len(self)) if self.held_out[i] == held_out])

    def select(self, index: list[int]) -> LayerSet:
        """The sets at `index`, in that order."""
        return replace(
            self,
            **{frame: getattr(self, frame)[index] for frame in FRAMES},
            captions=[self.captions[i] for i in index],
            names=[self.names[i] for i in index],
            held_out=[self.held_out[i] for i in index],
        )

    def __add__(self, other: LayerSet) -> LayerSet:
        """Both sets, one after the other."""
        if self.foreground.shape[1:] != other.foreground.shape[1:]:
            sizes = (f"{part.foreground.shape[-1]} pixels" for part in (self, other))
            raise InputError(f"layer sets of {' and '.join(sizes)}", "one size", "make both with the same --size")
        layers = {frame: torch.cat([getattr(self, frame), getattr(other, frame)]) for frame in FRAMES}
        lists = {key: getattr(self, key) + getattr(other, key) for key in LISTS}
        return LayerSet(**layers, **lists)

    def statistics(self) -> dict[str, float]:
        """Counts, mean visible share of the foregrounds, and how far foreground over background is from blended."""
        error, visible = [], []
        for rows in torch.arange(len(self)).split(256):
            alpha = self.foreground[rows, 3:].float() / 255
            over = self.foreground[rows, :3] * alpha + self.background[rows] * (1 - alpha)
            error.append((over - self.blended[rows]).div(255).square().mean(dim=(1, 2, 3)))
            visible.append(alpha.mean(dim=(1, 2, 3)))
        psnr = -10 * torch.cat(error).clamp(min=1e-6).log10()
        return {
            "sets": len(self),
            "held_out": sum(self.held_out),
            "skipped": len(self.skipped),
            "visible_share": torch.cat(visible).mean().item(),
            "recomposed_psnr_median": psnr.median().item(),
            "recomposed_psnr_lowest": psnr.min().item(),
        }

    def save(self, path: str | Path) -> None:
        """Write layers and captions into one safetensors file, under its name only when it is whole."""
        texts, caption = table_of(self.captions)
        layers = {frame: getattr(self, frame) for frame in FRAMES}
        save_set(
            path, {**layers, "caption": caption}, {name: getattr(self, name) for name in LISTS} | {"captions": texts}
        )

    @classmethod
    def load(cls, path: str | Path) -> LayerSet:
        """Read what `save` wrote; `InputError` when the file is something else."""
        with open_set(path, "`train compose` or `train read-layers`", LISTS) as (file, header):
            header["captions"] = captions_of(header["captions"], file.get_tensor("caption"))
            return cls(**{frame: file.get_tensor(frame) for frame in FRAMES}, **header)


def table_of(captions: Captions) -> tuple[list[list[str]], torch.Tensor]:
    """Different lists of variants, and the number of each frame's list, int32 [N,3]."""
    found: dict[tuple[str, ...], int] = {}
    numbers = [[found.setdefault(tuple(texts), len(found)) for texts in frames] for frames in captions]
    return [list(texts) for texts in found], torch.tensor(numbers, dtype=torch.int32).reshape(-1, len(FRAMES))


def captions_of(texts: list[list[str]], numbers: torch.Tensor) -> Captions:
    """What `table_of` took apart."""
    return [[texts[number] for number in row] for row in numbers.tolist()]


def layer_grid(data: LayerSet, most: int = 16, sets_a_row: int = 2) -> Image.Image:
    """Evenly spread sets: foreground on a checkerboard, background, blended, foreground over background."""
    count = min(most, len(data))
    index = sorted({round(i * (len(data) - 1) / max(1, count - 1)) for i in range(count)})
    images = []
    for i in index:
        rgba, background, blended = (getattr(data, frame)[i].float() / 255 for frame in FRAMES)
        over = rgba[:3] * rgba[3:] + background * (1 - rgba[3:])
        images += [checkered(rgba[None, [3, 0, 1, 2]])[0], background, blended, over]
    return image_grid(images, 4 * sets_a_row)
