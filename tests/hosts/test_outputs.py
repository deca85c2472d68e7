"""Files of a run: names, text in the PNG, whole or not at all, and the contact sheet."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import OutputError
from lib_layerdiffuse.hosts import outputs
from lib_layerdiffuse.pictures import Picture


def picture(mode: str = "RGBA", **changes) -> Picture:
    image = Image.new(mode, (48, 32), (200, 0, 0, 0)[: len(mode)])
    return Picture(**{"image": image, "prompt": "A red apple!", "seed": 7, "parameters": "a\nSteps: 2 ü", **changes})


def test_issue_9_the_rgba_itself_is_saved_with_its_text(tmp_path):
    path = outputs.PictureFolder(tmp_path / "new" / "folder").save(picture())
    assert path.name == "a-red-apple-7.png"
    with Image.open(path) as image:
        assert image.mode == "RGBA" and image.getpixel((0, 0)) == (200, 0, 0, 0)
        assert image.text["parameters"] == "a\nSteps: 2 ü"


def test_nothing_is_overwritten(tmp_path):
    folder = outputs.PictureFolder(tmp_path)
    assert [folder.save(picture()).name for _ in range(3)] == [
        "a-red-apple-7.png",
        "a-red-apple-7_2.png",
        "a-red-apple-7_3.png",
    ]


@pytest.mark.parametrize(
    ("prompt", "stem"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("ein Äpfel, rot", "ein-a-pfel-rot"),
        ("???", "picture"),
        ("x" * 300, "x" * 60),
        ("赤い りんご", "赤い-りんこ"),
    ],
)
def test_names_are_safe(prompt, stem):
    name = outputs.slug(prompt)
    assert "/" not in name and "." not in name and len(name) <= 60
    if prompt.isascii():
        assert name == stem


def test_frames_are_in_the_name():
    assert outputs.file_stem(picture(frame="foreground")) == "a-red-apple-7-foreground"


def test_full_disk_leaves_no_partial_file(tmp_path, monkeypatch):
    def save(self, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OutputError, match="No space left"):
        outputs.PictureFolder(tmp_path).save(picture())
    assert list(tmp_path.iterdir()) == []


def test_interrupt_while_writing_leaves_no_partial_file(tmp_path):
    def write(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outputs.write_whole(tmp_path / "picture.png", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        outputs.PictureFolder(tmp_path / "file" / "out")


def test_contact_sheet_shows_the_board_and_labels(tmp_path):
    pictures = [picture(), picture(mode="RGB", seed=8), picture(prompt="ü日本 " * 40, seed=9)]
    path = outputs.PictureFolder(tmp_path).save_sheet(pictures)
    assert path.name == "contact-sheet.png"
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    step, margin = 48 + outputs.MARGIN, outputs.MARGIN
    assert sheet.shape == (32 + outputs.LABEL_HEIGHT + 2 * margin, 3 * step + margin, 3)
    transparent, opaque = sheet[margin : margin + 32, margin : margin + 48], sheet[margin, margin + step + 5]
    assert set(np.unique(transparent)) <= {114, 115, 140, 141} and tuple(opaque) == (200, 0, 0)
    label = sheet[margin + 32 :, margin : margin + 48]
    assert label.min() < 100  # ink


def test_contact_sheet_keeps_the_frames_of_a_result_in_one_row():
    names = ("foreground", "background", "blended")
    frames = [picture(frame=name, group=group) for group in range(2) for name in names]
    assert outputs.contact_sheet(frames).width == 3 * (48 + outputs.MARGIN) + outputs.MARGIN


def test_large_pictures_are_made_smaller_on_the_sheet():
    sheet = outputs.contact_sheet([picture(image=Image.new("RGBA", (2048, 1024)))])
    assert sheet.width == outputs.CELL_MAX + 2 * outputs.MARGIN
