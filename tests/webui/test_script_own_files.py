"""Layer files of the user's own in a job: used in place of the usual ones, told in the infotext, refused if unfit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.running import Snapshot, run, same_pictures
from safetensors.torch import load_file, save_file

from lib_layerdiffuse.core.bases import LatentSpace
from lib_layerdiffuse.core.files.codec_parts import ENCODER
from lib_layerdiffuse.core.files.layer_files import metadata_of
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.files.hub import sha256
from lib_layerdiffuse.form.arguments import from_infotext

SINGLE = {"method": "sd15_fg"}
USUAL = {
    "method_file": "layer_sd15_transparent_attn",
    "decoder_file": "layer_sd15_vae_transparent_decoder",
    "encoder_file": "layer_sd15_vae_transparent_encoder",
}


@pytest.fixture
def own(tmp_path: Path, layers: Path) -> Path:
    """A folder with a file of each part that is another than the usual one, in a folder inside, under other names."""
    folder = tmp_path / "own"
    (folder / "mine").mkdir(parents=True)
    for name, stem in USUAL.items():
        state = {key: tensor + 0.05 for key, tensor in load_file(layers / f"{stem}.safetensors").items()}
        save_file(state, folder / "mine" / f"my {name}, Nr. 1.safetensors")
    return folder


def called(name: str) -> str:
    return f"mine/my {name}, Nr. 1"


def told(folder: Path, name: str) -> str:
    return f"{called(name)} [{sha256(folder / f'{called(name)}.safetensors')[:10]}]"


def with_folder(webui, folder: Path):
    return webui.settings(layerdiffuse_models_folder=str(folder))


@pytest.mark.parametrize("name", ["method_file", "decoder_file"])
def test_a_chosen_file_makes_another_picture_and_is_told(sd15, own, name) -> None:
    state = Snapshot.of(sd15)
    with with_folder(sd15, own):
        usual = run(sd15, SINGLE, steps=1)
        chosen = run(sd15, SINGLE | {name: called(name)}, steps=1)
        again = run(sd15, SINGLE, steps=1)
    assert chosen.error is None and chosen.note == usual.note
    assert not same_pictures(usual, chosen) and same_pictures(usual, again)
    assert chosen.parameters[f"layerdiffusion_{name}"] == told(own, name)
    assert f"layerdiffusion_{name}" not in usual.parameters
    state.check(sd15)


def test_the_encoder_counts_where_pictures_start(a1111, own) -> None:
    from fakes.running import picture

    fields = {"init_images": [picture()], "steps": 1, "denoising_strength": 0.3}
    with with_folder(a1111, own):
        usual = run(a1111, SINGLE, **fields)
        chosen = run(a1111, SINGLE | {"encoder_file": called("encoder_file")}, **fields)
    assert chosen.error is None and not same_pictures(usual, chosen)


def test_a_copy_of_the_usual_files_makes_the_same_picture(sd15, layers, tmp_path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for name, stem in USUAL.items():
        save_file(load_file(layers / f"{stem}.safetensors"), folder / f"{name}.safetensors")
    with with_folder(sd15, folder):
        chosen = run(sd15, {"method": "", **{name: name for name in USUAL}}, steps=1)
        assert chosen.error is None and same_pictures(run(sd15, SINGLE, steps=1), chosen)
    assert chosen.parameters["layerdiffusion_method"] == find_method("sd15_fg").label


def test_pasted_infotext_makes_the_same_picture(a1111, own) -> None:
    with with_folder(a1111, own):
        first = run(a1111, SINGLE | {"method_file": called("method_file")}, steps=1)
        pasted = from_infotext(first.parameters)
        again = run(a1111, SINGLE | {"method_file": pasted.method_file}, steps=1)
    assert same_pictures(first, again) and again.note == first.note and again.parameters == first.parameters


def test_a_pasted_file_that_is_gone_gives_the_usual_one_and_a_note(a1111, own) -> None:
    with with_folder(a1111, own):
        usual = run(a1111, SINGLE, steps=1)
        gone = run(a1111, SINGLE | {"method_file": "gone [0123456789]"}, steps=1)
    assert gone.error is None and same_pictures(usual, gone) and "'gone'" in gone.note
    assert "layerdiffusion_method_file" not in gone.parameters


def test_a_pasted_file_that_has_changed_is_used_with_a_note(a1111, own) -> None:
    name = called("method_file")
    with with_folder(a1111, own):
        changed = run(a1111, SINGLE | {"method_file": f"{name} [0123456789]"}, steps=1)
    assert changed.error is None and "0123456789" in changed.note
    assert changed.parameters["layerdiffusion_method_file"] == told(own, "method_file")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"method_file": "nothing"}, "nothing"),
        ({"method_file": "../own/mine/my method_file, Nr. 1"}, "not in"),
        ({"decoder_file": called("method_file")}, "for the method"),
        ({"method": "sd15_joint", "method_file": called("method_file")}, "made for"),
        ({"method_file": 3}, "method_file"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(sd15, own, chosen, words) -> None:
    state = Snapshot.of(sd15)
    with with_folder(sd15, own):
        refused = run(sd15, SINGLE | chosen, steps=1)
        assert refused.pictures == [] and words in refused.error
        state.check(sd15)
        assert run(sd15, SINGLE, steps=1).error is None


def test_a_file_for_another_base_is_refused(a1111, own, layers) -> None:
    encoder = load_file(layers / f"{USUAL['encoder_file']}.safetensors")
    save_file(encoder, own / "xl.safetensors", metadata_of(ENCODER, LatentSpace(0.13025)))
    with with_folder(a1111, own):
        refused = run(a1111, SINGLE | {"encoder_file": "xl"}, steps=1)
    assert "made for SDXL" in refused.error and called("encoder_file") in refused.error


def test_a_broken_file_is_not_known_and_harms_nothing(a1111, own) -> None:
    (own / "broken.safetensors").write_bytes(b"x" * 100)
    with with_folder(a1111, own):
        assert "'broken', which is no whole layer file" in run(a1111, SINGLE | {"method_file": "broken"}, steps=1).error
        assert run(a1111, SINGLE | {"method_file": called("method_file")}, steps=1).error is None


def test_a_file_whose_tensors_are_no_good_is_refused(a1111, own) -> None:
    path = own / f"{called('decoder_file')}.safetensors"
    state = load_file(path)
    state.pop(next(key for key in state if key.startswith("mid_block")))
    save_file(state, path)
    with with_folder(a1111, own):
        assert "missing" in run(a1111, SINGLE | {"decoder_file": called("decoder_file")}, steps=1).error


def test_offsets_for_sd15s_single_picture(a1111, own) -> None:
    modules = dict(a1111.sd_model.model.diffusion_model.named_modules())
    name = next(name for name in modules if name.endswith("attn2.to_k"))
    weight = modules[name].weight
    save_file({f"diffusion_model.{name}.weight::diff::0": torch.full_like(weight, 0.02)}, own / "offsets.safetensors")
    with with_folder(a1111, own):
        usual, chosen = run(a1111, SINGLE, steps=1), run(a1111, SINGLE | {"method_file": "offsets"}, steps=1)
    if weight.shape[1] == 768:
        assert chosen.error is None and not same_pictures(usual, chosen)
    else:  # a small checkpoint whose text is narrower
        assert "made for" in chosen.error
