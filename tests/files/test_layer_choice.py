"""Layer files by name: what lies in folders, whatever lies there, and how one is found, refused or told of."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_layerdiffuse.core.bases import LatentSpace
from lib_layerdiffuse.core.errors import BaseMismatchError, InputError
from lib_layerdiffuse.core.files.codec_parts import DECODER, ENCODER
from lib_layerdiffuse.core.files.layer_files import METHOD, metadata_of
from lib_layerdiffuse.core.files.layouts import encoder_layout
from lib_layerdiffuse.core.methods import OFFSETS, find_method
from lib_layerdiffuse.files import layer_catalogue
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.files.hub import sha256
from lib_layerdiffuse.files.layer_catalogue import Catalogue, Loaded, split_hash, weight_files
from lib_layerdiffuse.files.layer_choice import Chooser

QUERY = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
SCALES = {"sd15": 0.18215, "sdxl": 0.13025, "demo": 1.0}


def write(path: Path, state: dict, metadata: dict | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata)
    return path


def method_file(path: Path, width: int = 2048, value: float = 0.0) -> Path:
    """Offsets of one projection for a text of this width: 768 SD1.5, 2048 SDXL."""
    return write(path, {f"{QUERY}::diff::0": torch.full((8, width), value)})


def encoder_file(path: Path, base: str = "", channels: int = 4) -> Path:
    said = metadata_of(ENCODER, LatentSpace(SCALES[base])) if base else None
    state = {key: torch.zeros(shape) for key, shape in encoder_layout((2, 2, 2, 2), channels).items()}
    return write(path, state, said)


class Folders:
    """Folders whose files can be chosen; a usual file is only a name."""

    def __init__(self, *folders: Path):
        self.folders = list(folders)

    def find(self, stem: str) -> Path:
        return Path("usual") / stem

    def choice_folders(self) -> list[Path]:
        return self.folders


def chooser(*folders: Path, base: str = "sdxl", parameters: dict | None = None) -> Chooser:
    notes: list[str] = []
    made = Chooser(Catalogue(), Folders(*folders), Loaded(base, parameters), notes.append)
    object.__setattr__(made, "notes", notes)
    return made


# --- what lies in folders


def test_files_are_found_in_folders_inside_folders_with_any_name(tmp_path):
    for name in ("plain", "inside/der Körper, 雪 [1]", "a.b.c", "UPPER"):
        method_file(tmp_path / f"{name}.safetensors")
    (tmp_path / "UPPER.safetensors").rename(tmp_path / "UPPER.SAFETENSORS")
    write(tmp_path / "lora.safetensors", {"lora_unet_x.lora_up.weight": torch.zeros(1)})
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    (tmp_path / "readme.txt").write_text("no file of weights")
    names = list(Catalogue().scan([tmp_path]))
    assert names == ["UPPER", "a.b.c", "inside/der Körper, 雪 [1]", "plain"]


def test_of_two_of_a_name_the_first_folder_counts_and_a_folder_in_a_folder_once(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    wanted = method_file(first / "own.safetensors")
    method_file(second / "own.safetensors")
    method_file(first / "layer_model" / "other.safetensors")
    files = Catalogue().scan([first, first / "layer_model", second])
    assert list(files) == ["layer_model/other", "own"] and files["own"].path == wanted


def test_links_in_circles_end_and_links_to_nowhere_are_passed_over(tmp_path):
    method_file(tmp_path / "inside" / "own.safetensors")
    (tmp_path / "inside" / "back").symlink_to(tmp_path)
    (tmp_path / "inside" / "self").symlink_to(tmp_path / "inside")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "nothing.safetensors").symlink_to(tmp_path / "gone")
    assert list(Catalogue().scan([tmp_path, tmp_path / "gone"])) == ["inside/own"]


def test_a_folder_that_is_linked_in_counts(tmp_path):
    method_file(tmp_path / "far" / "own.safetensors")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    assert list(Catalogue().scan([tmp_path / "near"])) == ["link/own"]


def test_names_that_are_no_text_or_cannot_be_shown_are_passed_over(tmp_path):
    method_file(tmp_path / "own.safetensors")
    for name in (b"bad\xff.safetensors", b"two\nlines.safetensors"):
        try:
            os.link(tmp_path / "own.safetensors", os.fsencode(tmp_path) + b"/" + name)
        except OSError:
            pytest.skip("this system has no such names")
    assert list(Catalogue().scan([tmp_path])) == ["own"]


def test_headers_are_read_once_for_each_state_of_a_file(tmp_path, monkeypatch):
    path = method_file(tmp_path / "own.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    read, real = [], layer_catalogue.read_contents
    monkeypatch.setattr(layer_catalogue, "read_contents", lambda path: read.append(path.name) or real(path))
    catalogue = Catalogue()
    for _ in range(3):
        catalogue.scan([tmp_path])
    assert sorted(read) == ["broken.safetensors", "own.safetensors"]
    encoder_file(path)
    os.utime(path, ns=(1, 1))
    assert catalogue.scan([tmp_path])["own"].contents.part == ENCODER
    path.unlink()
    assert catalogue.scan([tmp_path]) == {}


def test_thousands_of_files_are_quick_and_there_is_an_end_to_them(tmp_path, monkeypatch):
    path = method_file(tmp_path / "one.safetensors")
    for number in range(2000):
        os.link(path, tmp_path / f"{number:04}.safetensors")
    catalogue = Catalogue()
    assert len(catalogue.scan([tmp_path])) == 2001
    start = time.perf_counter()
    catalogue.scan([tmp_path])
    assert time.perf_counter() - start < 2
    monkeypatch.setattr(layer_catalogue, "MOST", 100)
    assert len(list(weight_files(tmp_path))) == 100


def test_folders_deep_inside_are_not_looked_at(tmp_path):
    deep = tmp_path.joinpath(*"abcdefghijk")
    method_file(deep / "own.safetensors")
    method_file(deep.parents[4] / "own.safetensors")
    assert len(Catalogue().scan([tmp_path])) == 1


# --- what is offered


def test_only_what_fits_is_offered(tmp_path):
    method_file(tmp_path / "xl.safetensors")
    method_file(tmp_path / "sd15.safetensors", 768)
    encoder_file(tmp_path / "any encoder.safetensors")
    encoder_file(tmp_path / "sd15 encoder.safetensors", "sd15")
    encoder_file(tmp_path / "flux encoder.safetensors", channels=16)
    catalogue = Catalogue()
    offered = lambda part, *known: catalogue.offered([tmp_path], part, Loaded(*known))  # noqa: E731
    assert offered(METHOD, "sdxl") == ["xl"] and offered(METHOD, "sd15") == ["sd15"] and offered(METHOD, "demo") == []
    assert offered(METHOD) == ["sd15", "xl"] and offered(DECODER) == []
    assert offered(ENCODER, "sdxl") == ["any encoder"] and offered(ENCODER, "sd15") == ["any encoder", "sd15 encoder"]
    assert offered(METHOD, "sdxl", {QUERY.removeprefix("diffusion_model."): (8, 2048)}) == ["xl"]
    assert offered(METHOD, "sdxl", {QUERY.removeprefix("diffusion_model."): (9, 2048)}) == []
    assert catalogue.offered([tmp_path], METHOD, Loaded("sdxl"), find_method("xl_fg2blend")) == []


# --- one by its name


@pytest.mark.parametrize("text", ["mine/own", "mine\\OWN", "own", "mine/own.safetensors", "own [1]", " own [1]"])
def test_names_are_forgiving(tmp_path, text):
    method_file(tmp_path / "mine" / "own.safetensors")
    method_file(tmp_path / "own [1].safetensors")
    method, files = chooser(tmp_path).choose({METHOD: text.strip()}, find_method("xl_fg_attn"))
    assert files.find(method.weights) == tmp_path / f"{'own [1]' if '[' in text else 'mine/own'}.safetensors"
    assert files.find("another") == Path("usual/another")


@pytest.mark.parametrize(
    "text", ["../secret", "/etc/passwd", "{folder}/secret", "mine/../../secret", "~/secret", "secret", "", "C:\\secret"]
)
def test_no_name_leads_out_of_the_folders(tmp_path, text):
    method_file(tmp_path / "secret.safetensors")
    method_file(tmp_path / "open" / "own.safetensors")
    made = chooser(tmp_path / "open")
    if not text:
        assert made.choose({METHOD: text}, None)[1].paths == {}
        return
    with pytest.raises(InputError, match=r"fits \(own\)") as error:
        made.choose({METHOD: text.format(folder=tmp_path)}, None)
    assert text[-6:] in error.value.got and str(tmp_path / "open") in error.value.got


def test_files_of_three_parts_are_chosen_together(tmp_path):
    write_all = {
        METHOD: method_file(tmp_path / "m.safetensors"),
        ENCODER: encoder_file(tmp_path / "e.safetensors", "sdxl"),
    }
    method, files = chooser(tmp_path).choose({METHOD: "m", ENCODER: "e"}, None)
    assert method.id == "xl_fg_attn" and files.find(method.encoder) == write_all[ENCODER]
    assert files.told == {part: f"{path.stem} [{sha256(path)[:10]}]" for part, path in write_all.items()}


def test_a_single_picture_of_sd15_by_offsets(tmp_path):
    method_file(tmp_path / "own.safetensors", 768)
    method, _ = chooser(tmp_path, base="sd15").choose({METHOD: "own"}, None)
    assert (method.id, method.kind) == ("sd15_fg", OFFSETS)


@pytest.mark.parametrize(
    ("part", "name", "method", "words"),
    [
        (METHOD, "sd15", "xl_fg_attn", "made for SD1.5"),
        (METHOD, "xl", "xl_fg2blend", "made for 'Transparent image"),
        (METHOD, "encoder", "xl_fg_attn", "which is for the encoder"),
        (ENCODER, "xl", "xl_fg_attn", "which is for the method"),
        (ENCODER, "flux", "xl_fg_attn", "made for Flux"),
        (ENCODER, "foreign", "xl_fg_attn", "made for no base"),
    ],
)
def test_files_that_do_not_fit_are_refused_once(tmp_path, part, name, method, words):
    method_file(tmp_path / "xl.safetensors")
    method_file(tmp_path / "sd15.safetensors", 768)
    encoder_file(tmp_path / "encoder.safetensors")
    encoder_file(tmp_path / "flux.safetensors", channels=16)
    encoder_file(tmp_path / "foreign.safetensors", channels=5)
    with pytest.raises(BaseMismatchError) as error:
        chooser(tmp_path).choose({part: name}, find_method(method))
    assert words in error.value.got and ("xl" if part == METHOD else "encoder") in error.value.expected


def test_offsets_for_another_unet_are_refused(tmp_path):
    method_file(tmp_path / "own.safetensors")
    with pytest.raises(BaseMismatchError, match="another UNet"):
        chooser(tmp_path, parameters={"other": (1,)}).choose({METHOD: "own"}, None)


# --- of pasted settings


def test_the_same_file_needs_no_note_and_a_changed_one_does(tmp_path):
    path = method_file(tmp_path / "own.safetensors")
    pasted = f"own [{sha256(path)[:10]}]"
    made = chooser(tmp_path)
    assert made.choose({METHOD: pasted}, None)[1].told == {METHOD: pasted} and made.notes == []
    method_file(path, value=1.0)
    os.utime(path, ns=(1, 1))
    told = made.choose({METHOD: pasted}, None)[1].told[METHOD]
    assert told == f"own [{sha256(path)[:10]}]" != pasted
    assert len(made.notes) == 1 and pasted.split("[")[1] in made.notes[0] and told in made.notes[0]


def test_a_file_that_is_gone_is_the_usual_one_and_a_note(tmp_path):
    made = chooser(tmp_path)
    method, files = made.choose({METHOD: "own [0123456789]"}, None)
    assert files.find(method.weights) == Path("usual") / method.weights and files.told == {}
    assert len(made.notes) == 1 and "'own'" in made.notes[0] and "not here" in made.notes[0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("own", ("own", "")),
        ("own [0123456789]", ("own", "0123456789")),
        ("a, b: [x] [0123456789abcdef]", ("a, b: [x]", "0123456789abcdef")),
        ("own [XYZ]", ("own [XYZ]", "")),
        ("[0123456789]", ("[0123456789]", "")),
    ],
)
def test_names_with_a_checksum(text, parts):
    assert split_hash(text) == parts


# --- by path


def test_a_path_is_any_file(tmp_path):
    path = method_file(tmp_path / "own.safetensors")
    method, files = chooser().choose({METHOD: path}, None)
    assert files.find(method.weights) == path and files.told[METHOD].startswith("own [")


def test_a_path_to_nothing_or_to_something_else_is_refused(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"x")
    for name, words in (("none", "not there"), ("other", "no layer file")):
        with pytest.raises(InputError, match=words):
            chooser().choose({METHOD: tmp_path / f"{name}.safetensors"}, None)


def test_folders_of_the_program_are_those_it_looks_in(tmp_path):
    assert tmp_path in LayerFiles((tmp_path,)).choice_folders()


def test_nothing_is_chosen_without_a_loaded_model(tmp_path):
    method_file(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="load a checkpoint first"):
        Chooser(Catalogue(), Folders(tmp_path), Loaded(), print).choose({}, None)
