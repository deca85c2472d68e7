"""What `matting.py` measures on: true pictures through the codec, and pictures that the demo model paints.

All pictures are float64 [H,W,C] in [0,1], RGBA with straight alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.matting_figures import opacity, see_through_share, soft_share
from benchmarks.matting_rivals import Shot, trimap_of
from lib_layerdiffuse.api import generate
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import BACKGROUND, BLENDED, FOREGROUND, choose_method
from lib_layerdiffuse.core.picture.alpha import pad_rgb
from lib_layerdiffuse.core.picture.alpha_care import clear_haze
from lib_layerdiffuse.files.demo_folder import demo_folder
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.standalone.vocabulary import read_scenes, read_things
from lib_layerdiffuse.training.cli.models import open_vae
from lib_layerdiffuse.training.codec.harmlessness import load_codec
from lib_layerdiffuse.training.layer_sets.backdrops import paint_backdrops
from lib_layerdiffuse.training.layer_sets.compose import is_held_out_pair
from lib_layerdiffuse.training.layer_sets.layer_captions import blended_captions, foreground_captions
from lib_layerdiffuse.training.pictures.augment import soften
from lib_layerdiffuse.training.pictures.data import PreparedSet, fit_square

SIDE = 128
PLAIN = {"green": (0.0, 0.7, 0.25), "blue": (0.1, 0.2, 0.8), "white": (1.0, 1.0, 1.0)}
SCENE, SET_SCENE = "scene", "its own scene"
UNSEEN_SCENES = 1_000_000  # the number of the first painted scene: training draws from far below
NOISE = 0.2  # latent deviations, as `harmlessness` measures under
SOFT_FROM, SOLID_TO = 0.2, 0.12  # soft shares of what is visible
SEE_THROUGH_FROM = 0.07  # the same without what lies at an edge
MOST_COVERED, LEAST_COVERED = 0.9, 0.04  # shares of the picture that a thing may cover
SIGNS = ("/symbols/", "/flags/", "/money/")  # stamps that are no things
SOFT_THINGS = (
    "ghost, bubbles, cloud, fog, wine glass, fire, jellyfish, crystal ball, ice, droplet, dashing away, "
    "tumbler glass, glass of milk, cocktail glass, tornado, comet"
).split(", ")
SOLID_THINGS = "red apple, tiger face, rocket, cactus, teddy bear, house, umbrella, bicycle, palm tree, octopus".split(
    ", "
)


@dataclass
class Case:
    """One true RGBA picture, what is shown to matting by the name of its background, and our own results.

    `unseen` is the background [H,W,3] that results are laid over, to see what a user would see; `opacity` is that of
    true pictures of the same thing, where there are any.
    """

    group: str
    name: str
    truth: np.ndarray
    unseen: np.ndarray
    shots: dict[str, Shot] = field(default_factory=dict)
    ours: dict[str, np.ndarray] = field(default_factory=dict)
    opacity: float = math.nan


def laid(rgba: np.ndarray, background: np.ndarray) -> np.ndarray:
    """RGBA [H,W,4] over a background [H,W,3]."""
    return rgba[..., :3] * rgba[..., 3:] + background * (1 - rgba[..., 3:])


class Scenes:
    """Painted scenes that no training saw, two for each case."""

    def __init__(self, count: int):
        painted = paint_backdrops((), count, SIDE, first=UNSEEN_SCENES).cut(SIDE)
        self.pictures = painted.permute(0, 2, 3, 1).double().numpy() / 255

    def behind(self, number: int) -> np.ndarray:
        """The scene that a thing is shown on."""
        return self.pictures[2 * number % len(self.pictures)]

    def unseen(self, number: int) -> np.ndarray:
        """The scene that it is laid over afterwards."""
        return self.pictures[(2 * number + 7) % len(self.pictures)]


def shots_of(truth: np.ndarray, scene: np.ndarray, names: Sequence[str]) -> dict[str, Shot]:
    """A picture laid over a scene and plain colours, in 256 levels as files have them."""
    trimap, shots = trimap_of(truth[..., 3]), {}
    for name in names:
        background = scene if name == SCENE else np.broadcast_to(np.array(PLAIN[name]), scene.shape)
        shots[name] = Shot(_levels(laid(truth, background)), trimap, background, name != SCENE)
    return shots


def _levels(picture: np.ndarray) -> np.ndarray:
    return (picture * 255).round().clip(0, 255) / 255


def groups_of(data: PreparedSet, count: int, stamps: Path | None) -> dict[str, torch.Tensor]:
    """RGBA uint8 [N,4,S,S] by group: solid things, the same softened, see-through ones, thin ones, and stamps if given.

    At most `count` of each: the most see-through ones, and an even choice of solid and thin ones.
    """
    data = data.part(True) if any(data.held_out) else data
    alphas = data.rgba[:, 3].double().numpy() / 255
    soft, through = (np.array([share(alpha) for alpha in alphas]) for share in (soft_share, see_through_share))
    fits = _fits(data.rgba)
    solid = data.rgba[_spread(np.flatnonzero(fits & (soft < SOLID_TO)), count)]
    thin = fits & (soft >= SOFT_FROM) & (through < SEE_THROUGH_FROM)
    groups = {
        "solid": solid,
        "softened": softened(solid),
        "see-through": data.rgba[_highest(through * fits * (through >= SEE_THROUGH_FROM), count)],
        "thin": data.rgba[_spread(np.flatnonzero(thin), count)],
    }
    if stamps is not None:
        groups["stamps"] = see_through_stamps(stamps, count)
    return {name: rgba for name, rgba in groups.items() if len(rgba)}


def _highest(shares: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the `count` highest shares above 0, in order of number."""
    chosen = np.argsort(-shares, kind="stable")[:count]
    return np.sort(chosen[shares[chosen] > 0])


def _fits(rgba: torch.Tensor) -> np.ndarray:
    covered = (rgba[:, 3] >= 12).double().mean((1, 2)).numpy()
    return (covered >= LEAST_COVERED) & (covered <= MOST_COVERED)


def _spread(numbers: np.ndarray, count: int) -> np.ndarray:
    """`count` of the numbers, evenly spread."""
    return numbers[np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)]


def softened(rgba: torch.Tensor) -> torch.Tensor:
    """Alpha multiplied by smooth fields, seeded by the picture's number, as `harmlessness` does."""
    alpha = [soften(one[None, 3:] / 255, torch.Generator().manual_seed(number)) for number, one in enumerate(rgba)]
    return torch.cat([rgba[:, :3], (torch.cat(alpha) * 255).round().byte()], dim=1)


def see_through_stamps(folder: Path, count: int) -> torch.Tensor:
    """Of a folder's photographed cut-outs (PNG) the most see-through ones; letters, flags and coins left out."""
    things = [path for path in sorted(folder.rglob("*.png")) if not any(sign in path.as_posix() for sign in SIGNS)]
    if not things:
        raise InputError(f"no PNG in {folder}", "photographed cut-outs", "name the folder of the unpacked stamps")
    rgba = torch.stack([_stamp(path) for path in things])
    share = np.array([see_through_share(alpha) for alpha in rgba[:, 3].double().numpy() / 255])
    return rgba[_highest(share * _fits(rgba), count)]


def _stamp(path: Path) -> torch.Tensor:
    """uint8 [4,S,S] with padded colours."""
    with Image.open(path) as image:
        pixels = fit_square(image.convert("RGBA"), SIDE)
    colour = (pad_rgb(pixels) * 255).round().astype(np.uint8)
    return torch.from_numpy(np.concatenate([colour, pixels[..., 3:]], axis=-1)).permute(2, 0, 1)


class Codec:
    """The demo model's VAE and transparency codec, decoding as the program does: upright, once, haze cleared."""

    def __init__(self, data: PreparedSet, folder: str | Path | None = None):
        self.vae = open_vae(demo_folder(folder))
        self.codec = load_codec(demo_folder(folder), self.vae, data)

    @torch.no_grad()
    def there_and_back(self, rgba: torch.Tensor, noise: float = 0.0) -> np.ndarray:
        """RGBA uint8 [N,4,S,S], padded -> float64 [N,S,S,4]; `noise` in latent deviations, seeded by number."""
        results = [self._one(one[None].float() / 255, noise, number) for number, one in enumerate(rgba)]
        return torch.cat(results).permute(0, 2, 3, 1).double().numpy()

    def _one(self, rgba: torch.Tensor, noise: float, number: int) -> torch.Tensor:
        posterior = self.vae.encode(rgba[:, :3] * 2 - 1).latent_dist
        latent = posterior.mean + self.codec.offset(rgba[:, [3, 0, 1, 2]], posterior.std)
        if noise:
            drawn = torch.randn(latent.shape, generator=torch.Generator().manual_seed(number))
            latent = latent + noise * drawn * self.codec.deviation[:, None, None]
        argb = self.codec.decode(self.vae.decode(latent).sample, latent).clamp(0, 1)
        return clear_haze(argb[:, [1, 2, 3, 0]])


def reconstructed(
    groups: dict[str, torch.Tensor], codec: Codec, scenes: Scenes, backdrops: Sequence[str]
) -> list[Case]:
    """True pictures, shown on backgrounds, and what our codec makes of them."""
    cases = []
    for group, rgba in groups.items():
        ours = {"codec": codec.there_and_back(rgba), "codec, latent noise": codec.there_and_back(rgba, NOISE)}
        truth = rgba.permute(0, 2, 3, 1).double().numpy() / 255
        for number, one in enumerate(truth):
            shots = shots_of(one, scenes.behind(number), backdrops)
            own = {name: results[number] for name, results in ours.items()}
            cases.append(Case(group, f"{group} {number}", one, scenes.unseen(number), shots, own))
    return cases


def known_things(folder: str | Path | None, wanted: Sequence[str]) -> list[tuple[str, ...]]:
    """The wanted things that the model knows, each with all its names."""
    names = {each[0]: each for group in read_things(folder).values() for each in group}
    return [names[thing] for thing in wanted if thing in names]


def things_to_paint(folder: str | Path | None, count: int) -> list[tuple[str, ...]]:
    """`count` things, soft and solid ones in turn."""
    soft, solid = (known_things(folder, things) for things in (SOFT_THINGS, SOLID_THINGS))
    mixed = [thing for pair in zip(soft, solid, strict=False) for thing in pair]
    return [*mixed, *soft[len(solid) :]][:count]


def add_true_opacity(cases: Sequence[Case], things: Sequence[Sequence[str]], data: PreparedSet) -> None:
    """Tell each painted case how opaque true pictures of its thing are, in the mean."""
    for case, names in zip(cases, things, strict=True):
        numbers = [number for number, caption in enumerate(data.captions) if caption in names]
        if numbers:
            case.opacity = float(np.mean([opacity(alpha) for alpha in data.rgba[numbers, 3].double().numpy() / 255]))


def painted_singles(host: DiffusersHost, things: Sequence[Sequence[str]], scenes: Scenes) -> list[Case]:
    """Transparent pictures by the single method, shown on a scene and on green: their own alpha is the truth."""
    cases = []
    for number, names in enumerate(things):
        prompt = foreground_captions([names])[0]
        picture = _array(generate(prompt, pipeline=host, count=1, seed=1 + number)[0].image)
        shots = shots_of(picture, scenes.behind(number), (SCENE, "green"))
        cases.append(Case("painted alone", prompt, picture, scenes.unseen(number), shots))
    return cases


def painted_sets(
    host: DiffusersHost, things: Sequence[Sequence[str]], scenes: Scenes, folder: str | Path | None
) -> list[Case]:
    """Sets by the joint method; matting sees the painted blended picture, and the painted foreground is "the truth".

    Things stand in scenes that they were kept out of in training. Empty where the model has no joint method.
    """
    method = choose_method(host.base, "joint")
    places, cases = [place for place in read_scenes(folder) if place.phrases], []
    if not host.files.offers(method) or not places:
        return []
    for number, names in enumerate(things):
        unseen = [place for place in places if is_held_out_pair(names[0], place.name)]
        place = (unseen or places)[number % len(unseen or places)]
        prompt = blended_captions([names], place.phrases)[0]
        layers = generate(prompt, pipeline=host, method=method.id, count=1, seed=1 + number)
        frames = {picture.frame: _array(picture.image) for picture in layers}
        cases.append(_set_case(prompt, frames, scenes.unseen(number)))
    return cases


def _set_case(prompt: str, frames: dict[str, np.ndarray], unseen: np.ndarray) -> Case:
    truth, background = frames[FOREGROUND], frames[BACKGROUND][..., :3]
    shot = Shot(frames[BLENDED][..., :3], trimap_of(truth[..., 3]), background)
    return Case("painted in a set", prompt, truth, unseen, {SET_SCENE: shot}, {"painted foreground": truth})


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGBA"), np.float64) / 255
