"""Layer sets of one's own: folders, OpenRaster, PSD."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError, MissingExtraError
from lib_layerdiffuse.sets import archives
from lib_layerdiffuse.training.layer_sets.layer_sets import FRAMES, LayerSet
from lib_layerdiffuse.training.layer_sets.layer_sources import captions_of_name, read_layers
from lib_layerdiffuse.training.layer_sets.layered_files import read_ora, read_psd

from .toys import SIDE, disc


def write_set(folder: Path, size: int = SIDE, captions: object = None, **replaced: Image.Image | bytes) -> Path:
    """A folder with a set that fits together, or with some of its files replaced."""
    folder.mkdir(parents=True)
    foreground, background = disc(3, size), Image.new("RGB", (size, size), (30, 90, 200))
    blended = background.copy()
    blended.paste(foreground, mask=foreground.getchannel("A"))
    files = {"foreground": foreground, "background": background, "blended": blended, **replaced}
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / f"{name}.png").write_bytes(content)
        elif content is not None:
            content.save(folder / f"{name}.png")
    if captions is not None:
        text = captions if isinstance(captions, str) else json.dumps(captions)
        (folder / "captions.json").write_text(text)
    return folder


CAPTIONS = {"foreground": "a disc", "background": ["blue", "a blue wall"], "blended": "a disc before a blue wall"}


def test_a_folder_is_a_set(tmp_path):
    write_set(tmp_path / "one", captions=CAPTIONS)
    data = read_layers(tmp_path, SIDE)
    assert data.names == ["one"] and data.captions == [[["a disc"], ["blue", "a blue wall"], [CAPTIONS["blended"]]]]
    assert data.statistics()["recomposed_psnr_lowest"] > 45 and not data.skipped
    assert (data.foreground[0, 3].numpy() == np.asarray(disc(3))[..., 3]).all()


def test_sets_are_scaled_to_one_size(tmp_path):
    write_set(tmp_path / "large", size=3 * SIDE, captions=CAPTIONS)
    write_set(tmp_path / "small", size=SIDE // 2, captions=CAPTIONS)
    assert read_layers(tmp_path, SIDE).foreground.shape == (2, 4, SIDE, SIDE)


@pytest.mark.parametrize(
    ("name", "foreground", "background", "blended"),
    [
        ("red apple on a beach_02", "a red apple", "a beach", "a red apple on a beach"),
        ("owl in the woods", "an owl", "the woods", "an owl in the woods"),
        ("owl", "owl", "a background", "owl"),
        ("017", "picture", "a background", "picture"),
    ],
)
def test_a_folders_name_is_its_caption(name, foreground, background, blended):
    assert [texts[0] for texts in captions_of_name(name)] == [foreground, background, blended]


BAD_SETS = {
    "sizes": ({"background": Image.new("RGB", (16, 16))}, "different sizes: foreground 32x32, background 16x16"),
    "part": ({"blended": None}, "no picture blended"),
    "broken": ({"foreground": b"\x89PNG\r\n\x1a\n"}, "foreground: "),
    "tiny": (
        {part: Image.new("RGBA", (4, 4), "red") for part in FRAMES},
        "4x4 pixels",
    ),
    "empty": ({"foreground": Image.new("RGBA", (SIDE, SIDE))}, "wholly transparent"),
    "hole": ({"background": Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 90))}, "the background is not opaque"),
    "list": ({"captions": ["a", "b", "c"]}, "captions.json: not of the form"),
    "number": ({"captions": {**CAPTIONS, "blended": 3}}, "captions.json: not of the form"),
    "missing": ({"captions": {"foreground": "a disc"}}, "captions.json: not of the form"),
    "blank": ({"captions": {**CAPTIONS, "background": [" "]}}, "captions.json: not of the form"),
    "json": ({"captions": "{"}, "captions.json: "),
}


@pytest.mark.parametrize("case", BAD_SETS)
def test_a_bad_set_is_listed_with_its_reason_and_skipped(tmp_path, case):
    changes, reason = BAD_SETS[case]
    write_set(tmp_path / "bad", **changes)
    with pytest.raises(InputError, match="no usable layer set"):
        read_layers(tmp_path, SIDE)
    write_set(tmp_path / "good", captions=CAPTIONS)
    data = read_layers(tmp_path, SIDE)
    assert data.names == ["good"] and len(data.skipped) == 1
    assert data.skipped[0].startswith("bad: ") and reason in data.skipped[0]


def test_an_archive_of_folders_is_read_too(tmp_path):
    write_set(tmp_path / "sets" / "one", captions=CAPTIONS)
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        for file in (tmp_path / "sets" / "one").iterdir():
            archive.write(file, f"one/{file.name}")
    assert len(read_layers(tmp_path / "sets.zip", SIDE)) == 1


def ora(stack: str, images: dict[str, Image.Image], size: int = SIDE) -> bytes:
    """An OpenRaster file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", "image/openraster")
        archive.writestr("stack.xml", f'<image w="{size}" h="{size}"><stack>{stack}</stack></image>')
        for name, image in images.items():
            content = io.BytesIO()
            image.save(content, "PNG")
            archive.writestr(name, content.getvalue())
    return buffer.getvalue()


WALL, BALL = Image.new("RGB", (SIDE, SIDE), (0, 0, 200)), Image.new("RGBA", (8, 8), (200, 0, 0, 255))
STACK = '<layer name="red ball" src="1.png" x="4" y="6" opacity="0.5"/><layer name="beach" src="0.png"/>'


def test_an_openraster_file_is_a_set(tmp_path):
    (tmp_path / "picture.ora").write_bytes(ora(STACK, {"0.png": WALL, "1.png": BALL}))
    data = read_layers(tmp_path, SIDE)
    alpha = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    alpha[6:14, 4:12] = 128
    assert (data.foreground[0, 3].int() - alpha.int()).abs().max() <= 1
    assert data.blended[0, :, 8, 8].tolist() == pytest.approx([100, 0, 100], abs=1)
    assert data.captions[0][0][0] == "a red ball" and data.captions[0][2][0] == "a red ball on a beach"
    assert data.statistics()["recomposed_psnr_lowest"] > 45


def test_groups_and_hidden_layers_of_openraster():
    """A stack of half opacity is one layer: its lower layers must not shine through the upper ones."""
    for opacity, names, wanted in (("1", ["beach", "red ball"], [255, 128]), ("0.5", ["all"], [128])):
        hidden = '<layer name="x" visibility="hidden" src="9.png"/>'
        group = f'<stack name="all" opacity="{opacity}">{hidden}{STACK}</stack>'
        layers = read_ora(ora(group, {"0.png": WALL, "1.png": BALL}))
        assert [layer.name for layer in layers] == names
        assert [layer.image.getpixel((8, 8))[3] for layer in layers] == pytest.approx(wanted, abs=1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip", "not readable as OpenRaster"),
        (ora(STACK, {"0.png": WALL}), "1.png"),
        (ora('<layer src="0.png" composite-op="svg:multiply"/>', {"0.png": WALL}), "svg:multiply"),
        (ora(STACK, {"0.png": WALL, "1.png": BALL}, size=10**6), "1000000x1000000"),
        (ora('<layer src="0.png"/>' * 65, {"0.png": WALL}), "65 layers"),
        (ora("<stack>" * 20 + "</stack>" * 20, {}), "deep"),
        (ora("<layer", {}), "not readable as OpenRaster"),
        (ora('<layer src="0.png" opacity="x"/>', {"0.png": WALL}), "could not convert"),
    ],
)
def test_a_bad_openraster_file_says_why(content, reason):
    with pytest.raises(ValueError, match=reason):
        read_ora(content)


def test_entities_are_not_expanded():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("stack.xml", '<!DOCTYPE a [<!ENTITY b "c">]><image w="8" h="8"><stack>&b;</stack></image>')
    with pytest.raises(ValueError, match="document type"):
        read_ora(buffer.getvalue())


def test_a_member_that_would_fill_the_memory_is_not_read(monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 50)
    with pytest.raises(ValueError, match="more than 50"):
        read_ora(ora(STACK, {"0.png": WALL, "1.png": BALL}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_skipped_and_never_end_a_run(tmp_path, data):
    """Bytes of a whole file changed anywhere: a set, or a reason."""
    whole = bytearray(ora(STACK, {"0.png": WALL, "1.png": BALL}))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    if not (tmp_path / "good").exists():
        write_set(tmp_path / "good", captions=CAPTIONS)
    (tmp_path / "damaged.ora").write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    found = read_layers(tmp_path, SIDE)
    assert "good" in found.names and len(found) + len(found.skipped) == 2


def test_without_psd_tools_the_line_to_type_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    with pytest.raises(MissingExtraError, match="pip install psd-tools"):
        read_layers(tmp_path, SIDE)


def psd(change=lambda ball: None) -> bytes:
    """A PSD file with a background and a ball that has a mask."""
    psd_tools = pytest.importorskip("psd_tools")
    from psd_tools.api.layers import PixelLayer

    document = psd_tools.PSDImage.new("RGB", (SIDE, SIDE))
    document.append(PixelLayer.frompil(WALL, document, "beach", 0, 0))
    masked = BALL.copy()
    masked.putpixel((0, 0), (0, 0, 0, 0))
    ball = PixelLayer.frompil(masked, document, "red ball", 6, 4)
    document.append(ball)
    change(ball)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_a_psd_file_is_a_set(tmp_path):
    (tmp_path / "picture.psd").write_bytes(psd(lambda ball: setattr(ball, "opacity", 128)))
    data = read_layers(tmp_path, SIDE)
    alpha = torch.zeros(SIDE, SIDE, dtype=torch.int32)
    alpha[6:14, 4:12] = 128
    alpha[6, 4] = 0  # of the mask
    assert (data.foreground[0, 3].int() - alpha).abs().max() <= 1
    assert data.captions[0][2][0] == "a red ball on a beach"


def test_a_psd_file_that_is_no_plain_composite_says_why():
    pytest.importorskip("psd_tools")
    from psd_tools.constants import BlendMode

    with pytest.raises(ValueError, match="blend mode multiply"):
        read_psd(psd(lambda ball: setattr(ball, "blend_mode", BlendMode.MULTIPLY)))
    for cut in (5, 60, 400):
        with pytest.raises((ValueError, OSError)):
            read_psd(psd()[:cut])


def test_the_command_reads_and_shows_them(tmp_path, capsys):
    write_set(tmp_path / "sets" / "one", captions=CAPTIONS)
    write_set(tmp_path / "sets" / "bad", blended=None)
    out = tmp_path / "layers.safetensors"
    assert main(["train", "read-layers", str(tmp_path / "sets"), "--size", "32", "--out", str(out)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["sets"] == 1 and figures["skipped_files"] == ["bad: no picture blended"]
    assert len(LayerSet.load(out)) == 1 and Image.open(tmp_path / "layers_samples.png").size == (8 * SIDE, SIDE)
