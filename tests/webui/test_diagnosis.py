"""A job whose alpha failed gets one comment that says why; files do not tell it, and good pictures get none."""

from __future__ import annotations

import re

import pytest
from fakes.running import layer_of, picture, run

from lib_layerdiffuse.core.codec.decoding import TransparencyDecoder
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.picture import verdicts
from lib_layerdiffuse.core.picture.verdicts import AlphaFigures
from lib_layerdiffuse.diagnosis.base_prints import file_name, print_of

FG = find_method("sd15_fg")


def test_a_failed_alpha_is_told_once_with_its_causes(make_webui, flavour) -> None:
    webui = make_webui(flavour, "sd15")
    outcome = run(webui, {**layer_of(FG), "weight": 0.2}, prompt="a cat <lora:one:1> on a beach", steps=1, n_iter=2)
    assert all(AlphaFigures.of(image).verdict is verdicts.HAZE for image in outcome.pictures)
    assert outcome.note.startswith("2 of 2 pictures: ")
    for text in ("Weight is 0.2: set it to 1", "the prompt loads one", "the number of steps is 1: try 20 or more"):
        assert text in outcome.note
    assert "beach" not in outcome.note  # three causes are enough
    comments = [line for line in outcome.processed.comments.splitlines() if "haze" in line]
    assert len(comments) == 1
    assert not any("haze" in image.info.get("parameters", "") for image in outcome.pictures)


@pytest.mark.parametrize("layer", ["fg_additional_prompt", "bg_additional_prompt", "blend_additional_prompt"])
def test_loras_of_layers_own_words_are_named(make_webui, layer) -> None:
    webui = make_webui("a1111", "sd15")
    outcome = run(webui, {"method": "sd15_joint", layer: "fur <lora:two:1>", "weight": 0.2}, steps=20)
    assert "the prompt loads two" in outcome.note


@pytest.mark.parametrize(("layer", "named"), [("fg_additional_prompt", True), ("bg_additional_prompt", False)])
def test_a_chain_names_the_loras_of_the_step_that_painted_the_picture(make_webui, layer, named) -> None:
    webui = make_webui("a1111", "sdxl")
    outcome = run(webui, {"method": "xl_joint", layer: "fur <lora:two:1>", "weight": 0.2}, steps=20)
    assert outcome.note.count("alpha is") == 1 and ("the prompt loads two" in outcome.note) == named


def test_a_scene_is_one_of_the_transparent_layer(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    told = {
        layer: run(webui, {"method": "sd15_joint", layer: "on a beach"}, steps=20).note
        for layer in ("fg_additional_prompt", "bg_additional_prompt")
    }
    assert "beach" in told["fg_additional_prompt"] and "beach" not in told["bg_additional_prompt"]


def test_a_page_in_another_language_tells_it_in_that_and_an_api_in_english(make_webui) -> None:
    webui, layer = make_webui("a1111", "sd15"), {**layer_of(FG), "weight": 0.2}
    for language, is_api, told in (
        ("zh_CN", False, "权重为 0.2"),
        ("zh_CN", True, "Weight is 0.2"),
        ("None", False, "Weight is 0.2"),
        ("xx", False, "Weight is 0.2"),
    ):
        with webui.settings(localization=language):
            outcome = run(webui, layer, steps=1, batch_size=2, is_api=is_api)
        assert told in outcome.note and told in outcome.processed.comments
        assert ("2 张图片中有 2 张" in outcome.note) == ("为" in told)
        assert any(sign in outcome.note for sign in (": ", "; ")) == ("为" not in told)  # a language has its own


def test_good_alpha_gets_no_comment(make_webui, monkeypatch) -> None:
    monkeypatch.setattr(verdicts, "VERDICTS", (verdicts.OPAQUE, verdicts.EMPTY))  # for the decoder makes hazes
    outcome = run(make_webui("a1111", "sd15"), {**layer_of(FG), "weight": 0.2}, steps=1)
    assert not outcome.note and not outcome.processed.comments


def test_an_opaque_start_picture_is_named(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    outcome = run(webui, layer_of(FG), init_images=[picture(alpha=False)], denoising_strength=0.3, steps=20)
    assert "the start picture has no transparency of its own" in outcome.note


def test_a_checkpoint_far_from_its_base_is_told_how_far(make_webui, layers) -> None:
    webui = make_webui("a1111", "sd15")
    unet = webui.engine.sd_model.model.diffusion_model
    made = print_of("sd15", "one", [(name, 2 * value) for name, value in unet.named_parameters()])
    path = layers / file_name("sd15")
    path.write_text(made.to_json())
    try:
        outcome = run(webui, layer_of(FG), steps=20)
    finally:
        path.unlink()
    assert re.search(r"weights are 50% away from its base's", outcome.note)
    assert "its base's" not in run(webui, layer_of(FG), steps=20).note


@pytest.mark.parametrize("layer", ["fg_additional_prompt", "bg_additional_prompt"])
def test_forge_has_a_layers_lora_in_its_weights_and_they_are_not_compared(make_webui, layers, layer) -> None:
    webui = make_webui("forge", "sd15")
    unet = webui.sd_model.forge_objects.unet.model.diffusion_model
    made = print_of("sd15", "one", [(name, 2 * value) for name, value in unet.named_parameters()])
    path = layers / file_name("sd15")
    path.write_text(made.to_json())
    joint = {"method": "sd15_joint", layer: "fur"}
    try:
        plain = run(webui, joint, steps=20)
        with_lora = run(webui, {**joint, layer: "fur <lora:two:1>"}, steps=20)
    finally:
        path.unlink()
    assert "its base's" in plain.note and "its base's" not in with_lora.note


def test_issue_145_a_picture_without_transparency_says_so(make_webui, monkeypatch) -> None:
    original = TransparencyDecoder.decode

    def decode(self, *arguments, **named):
        result = original(self, *arguments, **named)
        result[:, 3] = 1.0
        return result

    monkeypatch.setattr(TransparencyDecoder, "decode", decode)
    outcome = run(make_webui("forge", "sd15"), layer_of(FG), batch_size=2, steps=20)
    assert outcome.modes == ["RGBA"] * 2 and outcome.note.startswith(
        "2 of 2 pictures: The picture is opaque everywhere"
    )
    assert "grey background" in outcome.note and "grey background" in outcome.processed.comments
