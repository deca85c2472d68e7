"""What the repairs of core/picture/alpha_care.py do to pictures: errors before and after, on the held-out set.

Alpha and colour come from the shipped demo codec (encode, VAE decode, transparency decode). Its VAE sees padded
colours, where published codecs see pictures on grey; so there are two sets of opaque pictures: the codec's own, and
what the same VAE makes of the pictures on grey. The faults (grey seam, faint, hole) are made here, on purpose. Haze is
in what the demo codec decodes anyway; it is also measured in pictures that the demo model paints.

python benchmarks/alpha_care.py --pictures docs/pictures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_layerdiffuse.api import generate, load
from lib_layerdiffuse.core.errors import MissingExtraError
from lib_layerdiffuse.core.picture.alpha import (
    GREY,
    TRIM_THRESHOLD,
    Box,
    composite_on_grey,
    from_tensor,
    rgba_array,
    to_tensor,
    trim_box,
)
from lib_layerdiffuse.core.picture.alpha_care import (
    clear_haze,
    estimate_foreground,
    fill_holes,
    remove_fringe,
    rescue_opacity,
)
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.training.cli.models import open_vae
from lib_layerdiffuse.training.codec.harmlessness import load_codec
from lib_layerdiffuse.training.pictures.augment import soften
from lib_layerdiffuse.training.pictures.data import PreparedSet, load_captions, prepare

HELD_OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "held_out"
REPAIRS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "fill_holes": fill_holes,
    "remove_fringe": remove_fringe,
    "rescue_opacity": rescue_opacity,
    "clear_haze": clear_haze,
}
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "magenta": (1.0, 0.0, 0.6)}
COLUMNS = ("alpha", "colour", *BACKGROUNDS, "edge")
WHOLE = ("magenta", slice(None), slice(None))
SHOWN = {"alpha": lambda rgba: (rgba[3:] * 60).clamp(max=1).expand(3, -1, -1)}  # faint alpha made visible
MADE_OPACITY, HOLE_RADIUS, EDGE = 0.8, 10, 0.02
SOFT_THINGS = ["cloud", "fog", "dashing away", "ghost", "droplet", "bubbles", "ice", "fire", "comet", "water wave"]


@dataclass(frozen=True)
class Case:
    """True RGBA [N,4,S,S], what a decoder gave, and the opaque picture [N,3,S,S] beside it."""

    name: str
    truth: torch.Tensor
    decoded: torch.Tensor
    opaque: torch.Tensor


class DemoCodec:
    """The shipped VAE and codec, decoding once."""

    def __init__(self, data: PreparedSet | None):
        self.vae = open_vae(DEMO_FOLDER)
        self.codec = load_codec(DEMO_FOLDER, self.vae, data)

    def there_and_back(self, rgba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """RGBA [N,4,S,S] with padded colours -> decoded RGBA and the opaque pictures."""
        pairs = [self._batch(part) for part in rgba.split(8)]
        return torch.cat([rgba for rgba, _ in pairs]), torch.cat([opaque for _, opaque in pairs])

    def _batch(self, rgba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latent = self.codec.encode(self.vae, rgba[:, [3, 0, 1, 2]])
        decoded = self.vae.decode(latent).sample
        return self.codec.decode(decoded, latent).clamp(0, 1)[:, [1, 2, 3, 0]], _pixels(decoded)

    def seen_on_grey(self, rgba: torch.Tensor) -> torch.Tensor:
        """RGBA [N,4,S,S] -> what the VAE makes of it on grey, [N,3,S,S]."""
        parts = composite_on_grey(rgba).mul(2).sub(1).split(8)
        return torch.cat([_pixels(self.vae.decode(self.vae.encode(part).latent_dist.mean).sample) for part in parts])


def _pixels(decoded: torch.Tensor) -> torch.Tensor:
    return decoded.div(2).add(0.5).clamp(0, 1)


def cases(rgba: torch.Tensor, codec: DemoCodec) -> Iterator[Case]:
    """Sound pictures first, then each fault, each beside the sound picture that could be taken for it."""
    softened = rgba.clone()
    fields = [soften(one[None, 3:], torch.Generator().manual_seed(number)) for number, one in enumerate(rgba)]
    softened[:, 3:] = torch.cat(fields)
    for kind, truth in (("plain", rgba), ("soft", softened)):
        decoded, padded = codec.there_and_back(truth)
        yield Case(f"{kind}, the demo codec", truth, decoded, padded)
        on_grey = codec.seen_on_grey(truth)
        yield Case(f"{kind}, seen on grey", truth, decoded, on_grey)
        yield Case(f"{kind}, grey seam", truth, with_seam(decoded), on_grey)
        if kind == "plain":
            yield Case("plain, faint", truth, with_alpha(decoded, MADE_OPACITY), on_grey)
            glass = with_alpha(truth, MADE_OPACITY)
            yield Case("plain, really faint", glass, with_alpha(decoded, MADE_OPACITY), codec.seen_on_grey(glass))
            yield from hole_cases(truth, decoded, codec)


def hole_cases(truth: torch.Tensor, decoded: torch.Tensor, codec: DemoCodec) -> Iterator[Case]:
    """A white spot that was decoded as a hole, and a real hole in the same place."""
    disc = _disc(truth.shape[-1])
    inside = (truth[:, 3] * (disc > 0)).sum((1, 2)) > 0.999 * (disc > 0).sum()
    truth, decoded = truth[inside], decoded[inside]
    white = torch.cat([truth[:, :3] * (1 - disc) + disc, truth[:, 3:]], dim=1)
    punched = torch.cat([decoded[:, :3] * (1 - disc) + disc, decoded[:, 3:] * (1 - disc)], dim=1)
    yield Case("white spot, lost", white, punched, codec.seen_on_grey(white))
    ring = torch.cat([truth[:, :3], truth[:, 3:] * (1 - disc)], dim=1)
    yield Case("real hole", ring, codec.there_and_back(ring)[0], codec.seen_on_grey(ring))


def _disc(size: int) -> torch.Tensor:
    place = torch.arange(size) - (size - 1) / 2
    return (HOLE_RADIUS + 0.5 - (place[:, None].square() + place.square()).sqrt()).clamp(0, 1)


def with_seam(rgba: torch.Tensor) -> torch.Tensor:
    """Colours as they look on grey, a whole seam."""
    return torch.cat([composite_on_grey(rgba), rgba[:, 3:]], dim=1)


def with_alpha(rgba: torch.Tensor, factor: float) -> torch.Tensor:
    return torch.cat([rgba[:, :3], rgba[:, 3:] * factor], dim=1)


def errors(rgba: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """Mean errors as in COLUMNS: alpha, premultiplied colour, on each background, straight colour at edges."""
    alpha, true_alpha = rgba[:, 3:], truth[:, 3:]
    colour = rgba[:, :3] * alpha - truth[:, :3] * true_alpha
    shown = [colour + torch.tensor(one)[:, None, None] * (true_alpha - alpha) for one in BACKGROUNDS.values()]
    weight = true_alpha * ((true_alpha > EDGE) & (true_alpha < 1 - EDGE))
    edge = ((rgba - truth)[:, :3].abs() * weight).sum() / weight.sum().clamp_min(1e-6) / 3
    return [part.abs().mean().item() for part in (alpha - true_alpha, colour, *shown)] + [edge.item()]


def row(name: str, figures: list[float], changed: str) -> str:
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in figures) + f" | {changed} |"


def table(all_cases: list[Case]) -> None:
    print("| case | " + " | ".join(COLUMNS) + " | changed |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for case in all_cases:
        print(row(f"**{case.name}**", errors(case.decoded, case.truth), f"of {len(case.truth)}"))
        for name, repair in REPAIRS.items():
            result = repair(case.decoded, case.opaque)
            changed = (result - case.decoded).abs().amax((1, 2, 3)) > 1 / 255
            print(row(name, errors(result, case.truth), str(int(changed.sum()))))


def compare_with_pymatting(all_cases: list[Case]) -> None:
    """Our estimate on a known background against pymatting's, which estimates the background too."""
    try:
        from pymatting import estimate_foreground_ml
    except ImportError as error:
        raise MissingExtraError("no module pymatting", "it, for --pymatting", "pip install pymatting") from error
    for case in all_cases:
        alpha, grey = case.decoded[:, 3:], torch.full((1, 3, 1, 1), GREY)
        ours = estimate_foreground(case.opaque, alpha, grey)
        arrays = zip(case.opaque.permute(0, 2, 3, 1).double(), alpha[:, 0].double(), strict=True)
        theirs = [torch.from_numpy(estimate_foreground_ml(one.numpy(), a.numpy())) for one, a in arrays]
        theirs = torch.stack(theirs).permute(0, 3, 1, 2).float()
        for name, colour in (("none", case.opaque), ("ours", ours), ("pymatting", theirs)):
            print(row(f"{case.name}: {name}", errors(torch.cat([colour, alpha], dim=1), case.truth), ""))


def haze_table(all_cases: dict[str, Case], host: DiffusersHost) -> None:
    """Shares of faint pixels, trim boxes and alpha errors before and after the haze is cleared."""
    plain, soft = (all_cases[f"{kind}, the demo codec"] for kind in ("plain", "soft"))
    print("| set | pictures | alpha 1..3 | trim box | alpha error | worse |")
    print("|---|---|---|---|---|---|")
    haze_row("plain", plain.decoded, plain.truth)
    haze_row("soft", soft.decoded, soft.truth)
    haze_row("painted by the demo model", painted_pictures(host, list(host.captions)[::3]))
    haze_row("painted, soft things", painted_pictures(host, SOFT_THINGS))


def haze_row(name: str, decoded: torch.Tensor, truth: torch.Tensor | None = None) -> None:
    """One set; the trim box is the box of all alpha above 0, in areas of the box at 16 of 255."""
    cleared = clear_haze(decoded)
    cells = [f"{faint(decoded):.4f}, {faint(cleared):.4f}", f"{larger(decoded):.3f}, {larger(cleared):.3f}"]
    if truth is not None:
        before, after = ((one - truth)[:, 3].abs().mean((1, 2)) for one in (decoded, cleared))
        worse = int((after > before).sum())
        cells += [f"{before.mean():.5f}, {after.mean():.5f}", f"{worse}"]
    print(f"| {name} | {len(decoded)} | " + " | ".join(cells) + " |")


def faint(rgba: torch.Tensor) -> float:
    """Share of pixels with an alpha of 1, 2 or 3 of 255."""
    alpha = torch.stack([torch.from_numpy(rgba_array(image)[..., 3]) for image in from_tensor(rgba)])
    return ((alpha >= 1) & (alpha <= 3)).float().mean().item()


def larger(rgba: torch.Tensor) -> float:
    """How many times larger the box of all alpha above 0 is than that of what is visible, in the mean."""
    images = from_tensor(rgba)
    boxes = [(area(trim_box(image, 1)), area(trim_box(image, TRIM_THRESHOLD))) for image in images]
    return sum(whole / visible for whole, visible in boxes) / len(boxes)


def area(box: Box | None) -> int:
    """Pixels of a box; none of none."""
    return 0 if box is None else (box[2] - box[0]) * (box[3] - box[1])


def painted_pictures(host: DiffusersHost, prompts: list[str]) -> torch.Tensor:
    """One picture of each thing by the demo model, as decoded, [N,4,128,128]."""
    pictures = generate(prompts, pipeline=host, count=1, seed=1, clear_haze=False)
    return to_tensor([picture.image for picture in pictures])


def draw(path: Path, case: Case, repair: str, numbers: list[int], view: tuple[str, slice, slice] = WHOLE) -> None:
    """A row for each picture: the opaque picture, before and after; `view` is background, rows and columns."""
    background = torch.tensor(BACKGROUNDS.get(view[0], (0.0, 0.0, 0.0)))[:, None, None]
    after = REPAIRS[repair](case.decoded, case.opaque)
    show = SHOWN.get(view[0], lambda rgba: rgba[:3] * rgba[3:] + background * (1 - rgba[3:]))
    rows = [[case.opaque[i], show(case.decoded[i]), show(after[i])] for i in numbers]
    picture = torch.cat([torch.cat([part[:, view[1], view[2]] for part in row], dim=2) for row in rows], dim=1)
    picture = F.interpolate(picture[None], scale_factor=768 // picture.shape[2], mode="nearest")
    image = from_tensor(torch.cat([picture, torch.ones_like(picture[:, :1])], dim=1))[0].convert("RGB")
    image.quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="also write alpha-care-*.png into this folder")
    parser.add_argument("--pymatting", action="store_true", help="also compare the colour estimate with pymatting's")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    chosen = options()
    data = prepare(HELD_OUT, 128, load_captions(HELD_OUT / "captions.json"))
    all_cases = {case.name: case for case in cases(data.rgba.float() / 255, DemoCodec(data))}
    table(list(all_cases.values()))
    haze_table(all_cases, load())
    if chosen.pymatting:
        compare_with_pymatting([case for name, case in all_cases.items() if name.endswith("seen on grey")])
    if chosen.pictures:
        name = lambda repair: chosen.pictures / f"alpha-care-{repair}.png"  # noqa: E731
        draw(name("holes"), all_cases["white spot, lost"], "fill_holes", [3, 20])
        corner = ("white", slice(0, 64), slice(0, 64))
        draw(name("seam"), all_cases["plain, grey seam"], "remove_fringe", [99, 100], corner)
        draw(name("soft"), all_cases["soft, grey seam"], "remove_fringe", [4, 100])
        draw(name("haze"), all_cases["plain, the demo codec"], "clear_haze", [3, 99], ("alpha", *WHOLE[1:]))
        draw(name("opacity"), all_cases["plain, faint"], "rescue_opacity", [28, 120])


if __name__ == "__main__":
    main()
