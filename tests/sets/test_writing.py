"""What is written: PSD and OpenRaster by the eyes of other readers, ZIP, WebP, sprite sheets; whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from examples import HEIGHT, NAMES, WIDTH, disc, example, noise, same
from PIL import Image, ImageCms

from lib_layerdiffuse.core.errors import InputError, OutputError
from lib_layerdiffuse.sets import formats
from lib_layerdiffuse.sets.formats import FORMATS, pack_set, save_set
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet
from lib_layerdiffuse.sets.psd_writing import packed_rows
from lib_layerdiffuse.sets.reading import read_set
from lib_layerdiffuse.sets.save_options import SaveOptions

LAYERED = ("psd", "ora", "zip")
PLAIN_NAMES = [*NAMES[:3], NAMES[3]]


def psd_of(layer_set: LayerSet) -> bytes:
    return pack_set(layer_set, "psd").content


def levels_apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures, of colour as far as it shows."""
    pixels = [np.asarray(image.convert("RGBA"), dtype=np.float64) / 255 for image in (one, other)]
    for picture in pixels:
        picture[..., :3] *= picture[..., 3:]
    return round(255 * np.abs(pixels[0] - pixels[1]).max())


@pytest.mark.parametrize("opaque", [True, False])
def test_psd_tools_reads_every_pixel_of_a_psd(opaque):
    psd_tools = pytest.importorskip("psd_tools")
    made = example(opaque)
    document = psd_tools.PSDImage.open(io.BytesIO(psd_of(made)))
    assert document.channels == (3 if opaque else 4) and document.size == made.size
    names = [layer.name.encode("utf-16", "surrogatepass").decode("utf-16") for layer in document]  # halves in 1.9
    assert names == [name[:255] for name in NAMES]
    for layer, read in zip(made, document, strict=True):
        assert same(layer.picture, read.topil()) and read.bbox == layer.box
        assert read.visible == layer.visible and read.opacity == round(255 * layer.opacity)
        assert read.blend_mode.name == "NORMAL" and not read.has_mask() and read.kind == "pixel"
    assert levels_apart(document.topil(), made.composite()) <= (0 if opaque else 1)
    assert levels_apart(document.composite(force=True), made.composite()) <= 2  # one of colour, one of alpha


@pytest.mark.parametrize("opaque", [True, False])
def test_psdparse_reads_every_pixel_of_a_psd(tmp_path, opaque):
    psdparse = pytest.importorskip("psdparse")
    made = example(opaque)
    path = save_set(made, tmp_path, "a").path
    document = psdparse.PSDFile()
    document.load(str(path))
    assert (document.header.width, document.header.height, document.header.channels) == (WIDTH, HEIGHT, 4 - opaque)
    for place, (layer, read) in enumerate(zip(made, document.layers, strict=True)):
        pixels = np.frombuffer(document.layer_image(place), np.uint8).reshape(layer.height, layer.width, 4)
        assert np.array_equal(pixels[..., [2, 1, 0, 3]], np.asarray(layer.picture))
        assert (read.left, read.top, read.right, read.bottom) == layer.box and read.visible == layer.visible
        assert read.name_unicode == layer.name[:255] and read.blend_mode.name == "NORMAL"


def test_pillow_shows_the_merged_picture_of_a_psd_in_srgb():
    made = example()
    with Image.open(io.BytesIO(psd_of(made))) as image:
        assert image.mode == "RGB" and same(image, made.composite())
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
    with Image.open(io.BytesIO(psd_of(example(opaque=False)))) as image:
        assert image.mode == "RGBA" and image.getchannel("A").tobytes() == example(False).composite().tobytes()[3::4]


def unpacked(row: bytes) -> bytes:
    """PackBits undone."""
    result, place = b"", 0
    while place < len(row):
        count = row[place]
        part = row[place + 1 : place + 2 + count] if count < 128 else row[place + 1 : place + 2] * (257 - count)
        result += part if count != 128 else b""
        place += 1 + (count + 1 if count < 128 else count != 128)
    return result


@pytest.mark.parametrize("width", [1, 2, 3, 127, 128, 129, 300])
def test_rows_are_packed_one_by_one(width):
    pixels = np.random.default_rng(width).integers(0, 3, (5, width), dtype=np.uint8)
    pixels[1], pixels[2, width // 2 :] = 7, 9
    rows = packed_rows(Image.fromarray(pixels))
    assert [unpacked(row) for row in rows] == [row.tobytes() for row in pixels]


def test_packbits_of_rows_with_the_pillow_of_webuis(monkeypatch) -> None:
    """Before Pillow 10 the tag of rows in a strip is not heeded: a strip has `strip_size`, else 64 KB."""
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 3, (9, 20), np.uint8))
    rows, save = packed_rows(pixels), Image.Image.save

    def save_as_before(image, *places, tiffinfo=None, **options):
        save(image, *places, **options)

    monkeypatch.setattr(Image.Image, "save", save_as_before)
    assert packed_rows(pixels) == rows and len(rows) == 9


def test_an_openraster_file_is_as_the_specification_wants_it():
    made = example()
    with zipfile.ZipFile(io.BytesIO(pack_set(made, "ora").content)) as archive:
        first = archive.infolist()[0]
        assert first.filename == "mimetype" and first.compress_type == zipfile.ZIP_STORED and not first.extra
        assert archive.read("mimetype") == b"image/openraster" and archive.testzip() is None
        assert same(Image.open(archive.open("mergedimage.png")), made.composite())
        assert max(Image.open(archive.open("Thumbnails/thumbnail.png")).size) <= 256
        root = ElementTree.fromstring(archive.read("stack.xml"))
        assert root.tag == "image" and (root.get("w"), root.get("h")) == (str(WIDTH), str(HEIGHT))
        entries = root.find("stack").findall("layer")
        for layer, entry in zip(made, entries[::-1], strict=True):  # the top layer comes first
            assert not entry.get("src").startswith("/") and ".." not in entry.get("src")
            assert same(Image.open(archive.open(entry.get("src"))), layer.picture)
            assert (int(entry.get("x")), int(entry.get("y"))) == layer.box[:2]
            assert float(entry.get("opacity")) == layer.opacity and entry.get("composite-op") == "svg:src-over"
            assert (entry.get("visibility") == "visible") == layer.visible
        assert [entry.get("name") for entry in entries[::-1]] == [*NAMES[:3], NAMES[3].replace("\x01", " ")]


def test_a_zip_tells_all_that_a_set_holds():
    made = example()
    with zipfile.ZipFile(io.BytesIO(pack_set(made, "zip").content)) as archive:
        table = json.loads(archive.read("layers.json"))
        assert (table["width"], table["height"], table["order"]) == (WIDTH, HEIGHT, "bottom first")
        for layer, row in zip(made, table["layers"], strict=True):
            assert same(Image.open(archive.open(row["file"])), layer.picture)
            told = {key: getattr(layer, key) for key in row if key != "file"}
            assert {key: value for key, value in row.items() if key != "file"} == told
        assert table["layers"][1]["file"] == "02-前景.png" and table["layers"][1]["prompt"] == "a cat\nand"


@pytest.mark.parametrize("kind", LAYERED)
def test_what_was_written_is_read_back(kind):
    made = example()
    blended = noise(seed=9).convert("RGB")
    made = LayerSet(WIDTH, HEIGHT, made.layers, blended)
    read = read_set(pack_set(made, kind).content, f"a.{kind}") if kind != "psd" else psd_back(made)
    assert read.size == made.size and same(read.blended, blended)
    for layer, back in zip(made, read, strict=True):
        assert same(layer.picture, back.picture) and layer.box == back.box and layer.visible == back.visible
        assert back.opacity == pytest.approx(layer.opacity, abs=0.5 / 255)
        assert back.name in (layer.name, layer.name[:255], layer.name.replace("\x01", " ")) and back.role == layer.role
        assert kind != "zip" or (back.prompt == layer.prompt and back.seed == layer.seed)


def psd_back(made: LayerSet) -> LayerSet:
    pytest.importorskip("psd_tools")
    return read_set(psd_of(made), "a.psd")


def test_webp_files_keep_hidden_colours_and_are_read_back(tmp_path):
    folder = save_set(example(), tmp_path, "set", "webp").path
    assert folder == tmp_path / "set" and sorted(path.suffix for path in folder.iterdir()) == [".json", *[".webp"] * 4]
    for layer, back in zip(example(), read_set(folder), strict=True):
        assert same(layer.picture, back.picture) and layer.box == back.box


def test_a_sprite_sheet_says_where_each_layer_lies(tmp_path):
    hidden = Layer("no", noise(), visible=False)
    made = LayerSet(64, 64, [Layer("a", disc(16), left=5, top=-3), Layer("b", disc(8, 1)), hidden])
    folder = save_set(made, tmp_path, "set", "sprites", SaveOptions(shape="power-of-two")).path
    table = json.loads((folder / "sheet.json").read_text("utf-8"))
    sheet = Image.open(folder / "sheet.png")
    assert sheet.size == (table["meta"]["size"]["w"], table["meta"]["size"]["h"]) == (32, 64)
    assert list(table["frames"]) == ["01-a.png", "02-b.png"]
    for layer, frame in zip(made, table["frames"].values(), strict=False):
        source = frame["spriteSourceSize"]
        assert frame["trimmed"] and frame["sourceSize"] == {"w": 64, "h": 64}
        part = cut(layer.picture, {**source, "x": source["x"] - layer.left, "y": source["y"] - layer.top})
        assert levels_apart(cut(sheet, frame["frame"]), part) == 0
    corners = {(frame["frame"]["x"], frame["frame"]["y"]) for frame in table["frames"].values()}
    assert all(min(corner) >= 2 for corner in corners) and len(corners) == 2
    assert sheet.getpixel((1, 8))[3] == 0 and sheet.getpixel((1, 8))[:3] != (0, 0, 0)  # bled


def cut(picture: Image.Image, box: dict[str, int]) -> Image.Image:
    return picture.crop((box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]))


def test_nothing_is_overwritten(tmp_path):
    for kind, row in FORMATS.items():
        folder = tmp_path / kind
        paths = [save_set(example(), folder, "set", kind).path.name for _ in range(3)]
        assert paths == [f"set{row.suffix}", f"set_2{row.suffix}", f"set_3{row.suffix}"]
        assert sorted(path.name for path in folder.iterdir()) == sorted(paths)


def test_equal_sets_give_equal_files():
    for kind in FORMATS:
        assert pack_set(example(), kind) == pack_set(example(), kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, kind):
    """From the second write on, as on a disk that fills while a file is written."""
    (tmp_path / "mine.txt").write_text("mine")
    written = []

    def full(*_: object) -> None:
        written.append(None)
        if len(written) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened, whole = Path.open, Path.write_bytes
    monkeypatch.setattr(Path, "open", lambda path, *modes, **named: Full(opened(path, *modes, **named), full))
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: (full(), whole(path, content))[1])
    with pytest.raises(OutputError, match="No space left"):
        save_set(example(), tmp_path, "set", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"] and len(written) >= 2


class Full:
    """A file whose writes are told before they are done."""

    def __init__(self, file, told):
        self._file, self._told = file, told

    def write(self, content):
        self._told()
        return self._file.write(content)

    def writelines(self, contents):
        for content in contents:
            self.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def test_a_full_device_is_told(tmp_path, monkeypatch):
    """The real thing where there is one."""
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    monkeypatch.setattr(formats, "_fill", lambda path, *rest: fill_device(*rest))
    with pytest.raises(OutputError, match="No space left"):
        save_set(example(), tmp_path, "set")
    assert not list(tmp_path.iterdir())


def fill_device(row, layer_set, options):
    with Path("/dev/full").open("r+b", buffering=0) as file:
        row.write_to(file, layer_set, options)


def test_a_hundred_layers(tmp_path):
    made = LayerSet(8, 8, [Layer(f"layer {number}", noise(4, 4, number), left=number % 5) for number in range(100)])
    for kind in LAYERED:
        read = read_set(pack_set(made, kind).content, f"a.{kind}") if kind != "psd" else psd_back(made)
        assert [layer.name for layer in read] == [layer.name for layer in made]
        assert all(same(layer.picture, back.picture) for layer, back in zip(made, read, strict=True))
    assert len(list(save_set(made, tmp_path, "a", "webp").path.iterdir())) == 101


def test_empty_and_opaque_layers(tmp_path):
    empty, wall = Layer("empty", Image.new("RGBA", (9, 7))), Layer("wall", Image.new("RGB", (9, 7), "red"))
    for layers in ([empty], [wall], [wall, empty], [empty, wall]):
        made = LayerSet(9, 7, layers)
        for kind in FORMATS:
            for options in (SaveOptions(), SaveOptions(trim=True, padding=1, shape="square")):
                assert save_set(made, tmp_path, "set", kind, options).path.exists()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda made: pack_set(made, "gif"), "one of psd, ora, zip, webp, sprites"),
        (lambda made: pack_set(made, None), "the format 'None'"),
        (lambda made: pack_set(LayerSet(4, 4)), "without layers"),
        (lambda made: pack_set(LayerSet(4, 4, [Layer("a", noise(), visible=False)]), "sprites"), "visible"),
        (lambda made: pack_set(made, "psd", SaveOptions(premultiplied=True)), "one of zip, webp, sprites"),
        (lambda made: SaveOptions(threshold=0), "from 1 to 255"),
        (lambda made: SaveOptions(padding=-1), "from 0 to 256"),
        (lambda made: SaveOptions(shape="round"), "power-of-two"),
    ],
)
def test_what_cannot_be_saved_says_why(call, reason):
    with pytest.raises(InputError, match=reason):
        call(example())
