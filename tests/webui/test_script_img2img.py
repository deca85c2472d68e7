"""Image to image with transparency: what the VAE sees, how its latents are adjusted, masks, crops and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.running import Snapshot, layer_of, networks_of, picture, run, same_pictures
from PIL import Image
from safetensors.torch import load_file

from lib_layerdiffuse.core.bases import CodecRule
from lib_layerdiffuse.core.codec.codec import TransparencyCodec
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.picture.alpha import to_tensor
from lib_layerdiffuse.webui.jobs.init_images import flattened

SINGLE = {"method": "sd15_fg"}
ONE = {"steps": 2, "denoising_strength": 0.5}  # one step is made


@pytest.fixture(scope="module")
def encoder(layers) -> TransparencyCodec:
    """SD1.5's transparency encoder with its rule."""
    return TransparencyCodec.from_state_dicts(
        encoder=load_file(layers / "layer_sd15_vae_transparent_encoder.safetensors")
    )


def adjusted(webui, encoder: TransparencyCodec, image: Image.Image) -> torch.Tensor:
    """The latent of an RGBA picture in the sampler's scale, computed apart from the WebUI."""
    vae = networks_of(webui)["vae"]

    def posterior(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moments = vae.encode(seen)
        return moments.mean, moments.std

    with torch.no_grad():
        return encoder.encode(to_tensor(image), posterior).values * 0.18215


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for 8-bit rounding on the way."""
    return (one - other).abs().max() < 0.05 and torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.9999


def test_issue_84_a_cut_out_is_encoded_with_its_alpha(sd15, encoder) -> None:
    state, image = Snapshot.of(sd15), picture(seed=5)
    outcome = run(sd15, SINGLE, init_images=[image], **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
    assert near(outcome.p.init_latent, adjusted(sd15, encoder, image))
    state.check(sd15)
    plain = run(sd15, init_images=[image], **ONE)
    assert not near(outcome.p.init_latent, plain.p.init_latent)


def test_it_is_the_same_every_time(a1111) -> None:
    first, second = (run(a1111, SINGLE, init_images=[picture(seed=5)], **ONE) for _ in range(2))
    assert same_pictures(first, second)


def test_issue_a15227_forge_12_each_start_picture_of_a_batch(sd15, encoder) -> None:
    images = [picture(seed=5), picture(seed=6), picture(seed=8, alpha=False)]
    outcome = run(sd15, SINGLE, init_images=images, batch_size=3, **ONE)
    assert outcome.modes == ["RGBA"] * 3 and not sd15.errors
    for latent, image in zip(outcome.p.init_latent, images, strict=True):
        assert near(latent[None], adjusted(sd15, encoder, image))


def test_one_start_picture_for_a_batch_and_several_batches(sd15, encoder) -> None:
    image = picture(seed=5)
    outcome = run(sd15, SINGLE, init_images=[image], batch_size=2, n_iter=2, **ONE)
    assert outcome.modes == ["RGBA"] * 4 and not sd15.errors
    assert near(outcome.p.init_latent[1:], adjusted(sd15, encoder, image))
    assert "launch_sampling" not in vars(outcome.p)


def test_a_result_of_several_frames_for_each_start_picture(sd15, encoder) -> None:
    """The WebUI takes the number of start pictures for the batch; groups must stay whole all the same."""
    images = [picture(seed=5), picture(seed=6)]
    outcome = run(sd15, {"method": "sd15_joint"}, init_images=images, batch_size=2, **ONE)
    assert not sd15.errors and outcome.error is None
    assert outcome.modes == ["RGBA", "RGB", "RGB"] * 2 and "rounded up" in outcome.note
    for place, latent in enumerate(outcome.p.init_latent):
        assert near(latent[None], adjusted(sd15, encoder, images[place // 3]))


def test_a_method_without_transparency_flattens_on_grey(sd15) -> None:
    row = find_method("sd15_fg2bg")
    image = picture(seed=5)
    outcome = run(sd15, layer_of(row), init_images=[image], batch_size=2, **ONE)
    grey = Image.new("RGBA", image.size, (128, 128, 128))
    grey.alpha_composite(image)
    plain = run(sd15, init_images=[grey.convert("RGB")], batch_size=2, **ONE)
    assert outcome.error is None and near(outcome.p.init_latent, plain.p.init_latent)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_resize_modes(a1111, mode) -> None:
    """The offset is that of the picture as the WebUI brings it to size: alpha lies where the colours lie."""
    wide = picture(seed=5, size=96).crop((0, 0, 96, 64))
    outcome = run(a1111, SINGLE, init_images=[wide], resize_mode=mode, **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not a1111.errors
    white = Image.new("RGBA", wide.size, "white")
    white.alpha_composite(wide)
    opaque = run(a1111, SINGLE, init_images=[white.convert("RGB")], resize_mode=mode, **ONE)
    assert not near(outcome.p.init_latent, opaque.p.init_latent)


def test_only_just_resize_has_the_offset_of_the_resized_picture(forge, encoder) -> None:
    image = picture(seed=5, size=128)
    outcome = run(forge, SINGLE, init_images=[image], resize_mode=0, **ONE)
    small = image.convert("RGBa").resize((64, 64), Image.Resampling.LANCZOS).convert("RGBA")
    wanted = adjusted(forge, encoder, small)
    assert torch.cosine_similarity(outcome.p.init_latent.flatten(), wanted.flatten(), dim=0) > 0.9


def mask(box: tuple[int, int, int, int], size: int = 64) -> Image.Image:
    """A white box to paint anew."""
    image = Image.new("L", (size, size))
    image.paste(255, box)
    return image


def test_inpainting_keeps_what_is_not_masked_with_its_alpha(sd15) -> None:
    image = picture(seed=5)
    outcome = run(sd15, SINGLE, init_images=[image], image_mask=mask((16, 16, 48, 48)), **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
    before, after = np.asarray(image), outcome.arrays[0]
    outside = np.ones((64, 64), bool)
    outside[16:48, 16:48] = False
    seen = outside & (before[..., 3] > 0)
    assert np.array_equal(after[outside, 3], before[outside, 3]) and np.array_equal(after[seen], before[seen])
    assert not np.array_equal(after[~outside], before[~outside])


def test_inpainting_keeps_the_colours_of_soft_edges(a1111) -> None:
    image = picture(seed=5)
    image.putalpha(Image.linear_gradient("L").resize((64, 64)))
    outcome = run(a1111, SINGLE, init_images=[image], image_mask=mask((0, 0, 16, 64)), **ONE)
    before, after = np.asarray(image)[:, 16:], outcome.arrays[0][:, 16:]
    assert np.array_equal(after[before[..., 3] > 0], before[before[..., 3] > 0])


def test_latents_are_those_after_the_blending_of_masks(sd15) -> None:
    outcome = run(sd15, SINGLE, init_images=[picture(seed=5)], image_mask=mask((0, 0, 32, 64)), **ONE)
    assert torch.equal(outcome.samples[..., 4:], outcome.p.init_latent[..., 4:])
    assert not torch.equal(outcome.samples[..., :4], outcome.p.init_latent[..., :4])


def test_forge_10_only_masked(sd15, encoder) -> None:
    image = picture(seed=5, size=128)
    box = mask((40, 40, 80, 80), 128)
    named = {"init_images": [image], "image_mask": box, "inpaint_full_res": True, **ONE}
    outcome = run(sd15, SINGLE, **named)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not outcome.note and not sd15.errors
    assert outcome.pictures[0].size == (128, 128)
    x, y, width, height = outcome.p.paste_to
    crop = image.crop((x, y, x + width, y + height)).convert("RGBa").resize((64, 64), Image.Resampling.LANCZOS)
    wanted = adjusted(sd15, encoder, crop.convert("RGBA"))
    assert torch.cosine_similarity(outcome.p.init_latent.flatten(), wanted.flatten(), dim=0) > 0.9
    after, before = outcome.arrays[0], np.asarray(image)
    assert np.array_equal(after[:x, :, 3], before[:x, :, 3])
    assert np.ptp(after[48:72, 48:72, 3]) > 0


def test_only_masked_of_a_batch(a1111) -> None:
    images = [picture(seed=5, size=128), picture(seed=6, size=128)]
    named = {"image_mask": mask((40, 40, 80, 80), 128), "inpaint_full_res": True, **ONE}
    outcome = run(a1111, SINGLE, init_images=images, batch_size=2, **named)
    assert outcome.modes == ["RGBA"] * 2 and outcome.error is None and not a1111.errors
    for after, image in zip(outcome.arrays, images, strict=True):
        before = np.asarray(image)[:20]
        seen = before[..., 3] > 0
        assert np.array_equal(after[:20, :, 3], before[..., 3]) and np.array_equal(after[:20][seen], before[seen])


def test_colour_correction_keeps_alpha(forge) -> None:
    with forge.settings(img2img_color_correction=True):
        outcome = run(forge, SINGLE, init_images=[picture(seed=5)], **ONE)
    without = run(forge, SINGLE, init_images=[picture(seed=5)], **ONE)
    assert outcome.modes == ["RGBA"] and not forge.errors
    assert np.array_equal(outcome.arrays[0][..., 3], without.arrays[0][..., 3])
    assert not np.array_equal(outcome.arrays[0], without.arrays[0])


def test_issue_71_face_restoration_keeps_alpha(forge) -> None:
    outcome = run(forge, SINGLE, restore_faces=True, steps=1)
    without = run(forge, SINGLE, steps=1)
    assert outcome.modes == ["RGBA"] and not np.array_equal(outcome.arrays[0], without.arrays[0])
    assert np.array_equal(outcome.arrays[0][..., 3], without.arrays[0][..., 3])


def test_a_vae_that_is_approximated(a1111) -> None:
    with a1111.settings(sd_vae_encode_method="TAESD"):
        outcome = run(a1111, SINGLE, init_images=[picture(seed=5)], **ONE)
    assert outcome.modes == ["RGBA"] and "VAE encode method" in outcome.note and not a1111.errors


def test_issue_68_a_plain_rgb_picture(a1111) -> None:
    outcome = run(a1111, SINGLE, init_images=[picture(seed=5, alpha=False)], **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not a1111.errors


def test_the_vae_is_not_altered_after_the_start_pictures_were_encoded(sd15) -> None:
    plain = run(sd15, init_images=[picture(seed=5)], **ONE)
    run(sd15, SINGLE, init_images=[picture(seed=5)], **ONE)
    assert same_pictures(run(sd15, init_images=[picture(seed=5)], **ONE), plain)


def test_an_exception_while_the_start_picture_is_encoded(sd15) -> None:
    state = Snapshot.of(sd15)
    with pytest.raises(RuntimeError, match="do not fit into a batch"):
        run(sd15, SINGLE, init_images=[picture(seed=seed) for seed in range(3)], batch_size=2, **ONE)
    state.check(sd15)


def test_issue_115_the_batch_tab_repeats_one_picture_and_the_batch_does_not_grow(sd15):
    start = picture(seed=5)
    batch = 1
    for _ in range(3):  # as the tab does it: the batch size of the job before, so many times the same picture
        outcome = run(sd15, {"method": "sd15_joint"}, init_images=[start] * batch, batch_size=batch, **ONE)
        assert not sd15.errors and outcome.error is None
        assert outcome.modes == ["RGBA", "RGB", "RGB"]
        batch = outcome.p.batch_size


def far_larger(image: Image.Image, times: int = 8) -> Image.Image:
    """The same picture with `times` as many pixels a side."""
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


@pytest.fixture
def encoded_sizes(a1111, monkeypatch) -> list[tuple[int, int]]:
    """Sizes of the start pictures that the WebUI works on."""
    sizes, flatten = [], a1111.images.flatten

    def watched(image: Image.Image, colour: str) -> Image.Image:
        sizes.append(image.size)
        return flatten(image, colour)

    monkeypatch.setattr(a1111.images, "flatten", watched)
    return sizes


def test_a_far_larger_start_picture_is_reduced_before_it_is_computed_with(a1111, monkeypatch, encoded_sizes) -> None:
    """What the WebUI is given has twice the job's size; the file that it keeps of the start is the whole one."""
    image = far_larger(picture(seed=5))
    whole = run(a1111, SINGLE, init_images=[image], **ONE).p.init_latent
    monkeypatch.setattr("lib_layerdiffuse.core.picture.sizes.MEDIUM", 128 * 128)
    a1111.opts.save_init_img = True
    outcome = run(a1111, SINGLE, init_images=[image], **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None
    assert encoded_sizes == [(512, 512), (128, 128)]
    assert torch.cosine_similarity(outcome.p.init_latent.flatten(), whole.flatten(), dim=0) > 0.99
    (saved,) = (a1111.folder / "outputs" / "init-images").iterdir()
    assert np.array_equal(np.asarray(Image.open(saved)), np.asarray(image))


def test_only_masked_takes_its_crop_from_the_whole_start_picture(a1111, monkeypatch, encoded_sizes) -> None:
    monkeypatch.setattr("lib_layerdiffuse.core.picture.sizes.MEDIUM", 128 * 128)
    image = far_larger(picture(seed=5), 4)
    mask = Image.new("L", image.size)
    mask.paste(255, (64, 64, 128, 128))
    outcome = run(a1111, SINGLE, init_images=[image], image_mask=mask, inpaint_full_res=True, **ONE)
    assert encoded_sizes == [image.size] and outcome.pictures[0].size == image.size
    assert outcome.error is None


def test_a_start_picture_of_too_many_pixels_is_refused_with_the_limit(a1111, monkeypatch) -> None:
    monkeypatch.setattr("lib_layerdiffuse.core.picture.sizes.MOST_PIXELS", 64 * 64)
    outcome = run(a1111, SINGLE, init_images=[picture(65)], **ONE)
    assert "start picture of 65x65 pixels" in outcome.error and not outcome.pictures


@pytest.mark.parametrize("rule", ["grey", "padded"])
def test_a_picture_is_flattened_in_strips_as_in_one_piece(rule, encoder, monkeypatch) -> None:
    codec = TransparencyCodec(encoder.encoder, rule=CodecRule(rule))
    whole = flattened(picture(), codec)
    monkeypatch.setattr("lib_layerdiffuse.webui.jobs.init_images.ROWS", 7)
    assert np.array_equal(np.asarray(flattened(picture(), codec)), np.asarray(whole))
