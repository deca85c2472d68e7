"""The demo model that ships: its files, its codec's figures on pictures that no part of it saw, and what it paints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lib_layerdiffuse.api import generate, load, words
from lib_layerdiffuse.core.methods import BASES, find_method, stems_of
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER
from lib_layerdiffuse.standalone.run_plan import with_defaults
from lib_layerdiffuse.standalone.settings import GenerateSettings
from lib_layerdiffuse.training.cli.models import open_vae
from lib_layerdiffuse.training.codec.harmlessness import evaluate_codec, load_codec
from lib_layerdiffuse.training.pictures.data import is_held_out, load_captions, prepare
from lib_layerdiffuse.training.pictures.vocabulary import Vocabulary

HELD_OUT = Path(__file__).parent / "data" / "held_out"
EVERY = 18  # of the held-out pictures: `harmlessness` gives the figures of all of them, in docs/demo-model.md


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """Figures of the shipped codec and VAE on a few of the held-out pictures in tests/data."""
    captions = load_captions(HELD_OUT / "captions.json")
    data = prepare(HELD_OUT, 128, captions)
    data = data.select(list(range(0, len(data), EVERY)))
    vae = open_vae(DEMO_FOLDER)
    return evaluate_codec(vae, load_codec(DEMO_FOLDER, vae, data), data)


@pytest.fixture(scope="module")
def paint() -> Callable[..., Image.Image]:
    """Paints one picture with the demo model, which is loaded once; the picture of a prompt alone is painted once."""
    host, painted = load(), {}

    def paint(prompt: str, **more) -> Image.Image:
        if more or prompt not in painted:
            image = generate(prompt, pipeline=host, count=1, seed=1, passes=1, **more)[0].image
            return image if more else painted.setdefault(prompt, image)
        return painted[prompt]

    return paint


def alpha_of(image: Image.Image) -> np.ndarray:
    """Alpha in [0,1]."""
    assert image.mode == "RGBA" and image.size == (128, 128)
    return np.asarray(image)[..., 3] / 255


def test_files_are_small_half_precision_and_licensed():
    weights = list(DEMO_FOLDER.rglob("*.safetensors"))
    stems = {path.stem for path in weights}
    least = {"demo", BASES["demo"].encoder, BASES["demo"].decoder, find_method("demo_fg").weights}
    assert least <= stems <= {"demo", "demo_control_lines", *stems_of("demo")}
    assert sum(path.stat().st_size for path in DEMO_FOLDER.rglob("*") if path.is_file()) <= 60e6
    for path in weights:
        with safe_open(str(path), framework="pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} <= {torch.float16, torch.int64}
    assert "Microsoft" in (DEMO_FOLDER / "NOTICE").read_text() and (DEMO_FOLDER / "README.md").is_file()


def test_no_picture_of_the_figures_shows_a_trained_concept():
    vocabulary = Vocabulary.load(DEMO_FOLDER / "vocabulary.json")
    captions = json.loads((HELD_OUT / "captions.json").read_text(encoding="utf-8")).values()
    assert len(captions) >= 120
    assert all(is_held_out(caption, vocabulary.keep) for caption in captions)


def test_alpha_comes_back_on_unseen_concepts(figures):
    assert figures["alpha_mae"] <= 0.012
    assert figures["alpha_mae_soft"] <= 0.016
    assert figures["alpha_mae_at_0.2_sigma_noise"] <= 0.03
    # from the latent without its offset the decoder cannot know alpha: it does not guess from colours
    assert figures["alpha_mae_without_offset"] > 10 * figures["alpha_mae"]


def test_colour_comes_back_and_the_vae_is_not_harmed(figures):
    # an aim that is missed: at hard edges the plain set stays behind the VAE, see docs/demo-model.md
    assert figures["rgba_psnr_soft"] >= figures["vae_psnr"] and figures["rgba_psnr"] >= 25
    assert figures["harmlessness_loss_db"] <= 0.15
    assert 0 < figures["offset_rms_sigma"] < 2


def test_it_knows_a_hundred_concepts():
    assert len(Vocabulary.load(DEMO_FOLDER / "vocabulary.json").concepts) >= 100
    known = {caption for captions in words().values() for caption in captions}
    assert {"red apple", "cat", "ghost", "bubbles", "fire", "smiling face with sunglasses"} <= known


@pytest.mark.parametrize("prompt", ["a red apple", "a cat", "a rocket"])
def test_a_solid_thing_is_opaque_on_nothing(paint, prompt):
    alpha = alpha_of(paint(prompt))
    corners = np.array([alpha[:6, :6], alpha[:6, -6:], alpha[-6:, :6], alpha[-6:, -6:]])
    assert corners.mean() < 0.1
    assert 0.15 < (alpha > 0.9).mean() < 0.85
    assert alpha[48:80, 48:80].mean() > 0.9


@pytest.mark.parametrize("prompt", ["soap bubbles", "a cloud", "a wine glass"])
def test_a_see_through_thing_has_soft_alpha(paint, prompt):
    alpha = alpha_of(paint(prompt))
    assert ((alpha > 0.1) & (alpha < 0.9)).mean() > 0.08


def test_the_box_alone_makes_it_transparent(paint):
    """Without the method the same prompt gives an ordinary picture of the same thing."""
    plain = paint("a red apple", transparent=False)
    assert plain.mode == "RGB"
    red, green, blue = np.asarray(plain)[40:90, 40:90].reshape(-1, 3).mean(axis=0)
    assert red > 1.5 * green and red > 1.5 * blue
    painted = paint("a red apple")
    shown = np.asarray(painted)[40:90, 40:90]
    red, green, blue = shown[..., :3].reshape(-1, 3).mean(axis=0)
    assert red > 1.5 * green and red > 1.5 * blue


def test_its_decoder_is_asked_once_and_published_ones_as_often_as_wished():
    pipeline = load().pipeline
    asked = {base: with_defaults(GenerateSettings("a cat"), base, pipeline).passes for base in BASES if base != "flux"}
    assert asked == {"demo": 1, "sd15": 8, "sdxl": 8}


def test_a_picture_survives_image_to_image_without_noise(paint):
    """RGBA in, nothing sampled, RGBA out: only the codec is at work."""
    painted = paint("a red apple")
    again = paint("a red apple", init=painted, denoise=0.0)
    assert np.abs(alpha_of(again) - alpha_of(painted)).mean() < 0.02


def test_hidden_colours_follow_the_setting(paint):
    rules = ("as-decoded", "cleared", "padded")
    found = {rule: paint("a red apple", steps=4, hidden_colours=rule) for rule in rules}
    decoded = found["as-decoded"]
    hidden = np.asarray(decoded)[..., 3] == 0
    assert hidden.any() and not np.asarray(found["cleared"])[hidden].any()
    assert not np.array_equal(np.asarray(found["padded"])[hidden], np.asarray(decoded)[hidden])
    assert all(np.array_equal(np.asarray(image)[~hidden], np.asarray(decoded)[~hidden]) for image in found.values())
