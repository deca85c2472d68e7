"""Files of a run: names, text in the PNG, whole or not at all, and the contact sheet."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import InputError, OutputError
from lib_layerdiffuse.files import whole_files
from lib_layerdiffuse.standalone import outputs, picture_files
from lib_layerdiffuse.standalone.pictures import Picture


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
        ("ein Äpfel, rot", "ein-äpfel-rot"),
        ("crème brûlée", "crème-brûlée"),
        (unicodedata.normalize("NFD", "crème brûlée"), "crème-brûlée"),
        ("???", "picture"),
        ("🍎🍎", "picture"),
        ("x" * 300, "x" * 60),
        ("赤い りんご", "赤い-りんご"),
        ("लाल सेब", "लाल-सेब"),
        ("красное яблоко", "красное-яблоко"),
        ("тест " * 20, ("тест-" * 12).strip("-")),
        ("a\nb\tc\0d\u202ee_f", "a-b-c-d-e-f"),
        ("a" * 59 + " b", "a" * 59),
    ],
)
def test_names_are_safe_and_keep_every_script(prompt, stem):
    assert picture_files.slug(prompt) == stem


@pytest.mark.parametrize("letter", ["x", "ж", "漢", "𠮷", "𝔸"])
def test_names_fit_into_what_a_file_system_takes(tmp_path, letter):
    path = outputs.PictureFolder(tmp_path).save(picture(prompt=letter * 300, seed=2**32 - 1, frame="foreground"))
    assert len(path.name.encode()) <= 143 + 4  # encrypted home folders take 143
    assert path.name.startswith(letter)


def test_frames_are_in_the_name():
    assert picture_files.file_stem("a red apple", 7, "foreground") == "a-red-apple-7-foreground"


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
        whole_files.write_whole(tmp_path / "picture.png", write)
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


def test_many_results_stand_two_in_a_row():
    frames = [
        picture(frame=name, group=group) for group in range(4) for name in ("foreground", "background", "blended")
    ]
    sheet = outputs.contact_sheet(frames)
    assert sheet.size == (6 * (48 + outputs.MARGIN) + outputs.MARGIN, outputs.contact_sheet(frames[:6]).height)


def test_contact_sheet_keeps_the_frames_of_a_result_in_one_row():
    names = ("foreground", "background", "blended")
    frames = [picture(frame=name, group=group) for group in range(2) for name in names]
    assert outputs.contact_sheet(frames).width == 3 * (48 + outputs.MARGIN) + outputs.MARGIN


def test_large_pictures_are_made_smaller_on_the_sheet():
    sheet = outputs.contact_sheet([picture(image=Image.new("RGBA", (2048, 1024)))])
    assert sheet.width == outputs.CELL_MAX + 2 * outputs.MARGIN


def save_many(folder: Path, colour: int) -> None:
    """What each of several processes does."""
    target = outputs.PictureFolder(folder)
    image = Image.new("RGBA", (8, 8), (colour, 0, 0, 255))
    for _ in range(50):
        target.save(Picture(image, "a red apple", 7, parameters=f"colour {colour}"))


def test_several_processes_save_into_one_folder_and_lose_nothing(tmp_path):
    colours = (10, 20, 30, 40)
    workers = [multiprocessing.get_context("fork").Process(target=save_many, args=(tmp_path, c)) for c in colours]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    found = [Image.open(path).getpixel((0, 0))[0] for path in tmp_path.iterdir()]
    assert sorted(found) == sorted(colours * 50)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_nothing_is_overwritten_where_there_are_no_hard_links(tmp_path, monkeypatch, number):
    def link(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    folder = outputs.PictureFolder(tmp_path)
    assert [folder.save(picture()).name for _ in range(2)] == ["a-red-apple-7.png", "a-red-apple-7_2.png"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_users_own_contact_sheet_stays(tmp_path):
    (tmp_path / "contact-sheet.png").write_text("mine")
    assert outputs.PictureFolder(tmp_path).save_sheet([picture()]).name == "contact-sheet_2.png"
    assert (tmp_path / "contact-sheet.png").read_text() == "mine"


def test_a_folder_is_made_with_its_first_picture_and_not_before(tmp_path):
    folder = outputs.PictureFolder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    folder.save(picture())
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["a-red-apple-7.png"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that nobody can write to")
def test_a_folder_that_takes_no_file_is_told_at_once():
    with pytest.raises(OutputError, match="/proc/self"):
        outputs.PictureFolder("/proc/self")


def test_a_read_only_disk_is_an_output_error_to_the_end(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    folder = outputs.PictureFolder(tmp_path)
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)  # such a disk refuses this before it looks for the file
    with pytest.raises(OutputError, match="Read-only"):
        folder.save(picture())


@pytest.mark.parametrize("prompt", ["word " * 2000, "x" * 10_000, "日本" * 5000, "a\nb\nc " * 1000])
def test_a_prompt_as_long_as_a_book_costs_no_time(tmp_path, prompt):
    began = time.monotonic()
    folder, pictures = outputs.PictureFolder(tmp_path), [picture(prompt=prompt, seed=seed) for seed in range(8)]
    for each in pictures:
        folder.save(each)
    folder.save_sheet(pictures)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("text", ["a red apple on a table", "iiiiiiiiiiiiiiiiiiii", "WWWWWWWWWWWW"])
def test_labels_are_as_long_as_fits(text):
    font = outputs.ImageFont.load_default()
    for width in range(20, 90, 7):
        label = outputs.shortened(text, width, font)
        assert font.getlength(label) <= width
        assert label == text or font.getlength(text[: len(label) - 2] + "...") > width
    assert outputs.shortened(text, 1000, font) == text


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_picture_save_keeps_seed_settings_and_hidden_colours(tmp_path, suffix):
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    image.putpixel((3, 3), (1, 2, 3, 128))
    path = picture(image=image).save(tmp_path / "new" / f"apple{suffix}")
    with Image.open(path) as saved:
        assert saved.convert("RGBA").tobytes() == image.tobytes()
        text = saved.text["parameters"] if suffix != ".webp" else comment(saved)
    assert text == "a\nSteps: 2 ü"
    picture(seed=9).save(path)  # named by the user: replaced
    assert len(list(path.parent.iterdir())) == 1


def comment(image: Image.Image) -> str:
    """The EXIF comment in the form that WebUIs write."""
    raw = image.getexif().get_ifd(0x8769)[0x9286]
    assert raw.startswith(b"UNICODE\0")
    return raw[8:].decode("utf-16-be")


def test_picture_save_into_a_folder_and_what_it_refuses(tmp_path):
    assert picture().save(str(tmp_path)).name == "a-red-apple-7.png"
    assert picture().save(tmp_path).name == "a-red-apple-7_2.png"
    assert picture().save(tmp_path / "new") == tmp_path / "new" / "a-red-apple-7.png"
    with pytest.raises(InputError, match=r"\.png or \.webp"):
        picture().save(tmp_path / "apple.jpg")
    for path in (None, "", 7):
        with pytest.raises(InputError, match="path"):
            picture().save(path)


def test_trimming_leaves_haze_out():
    image = Image.new("RGBA", (40, 30), (0, 0, 0, 3))
    image.paste((255, 0, 0, 200), (10, 5, 20, 25))
    whole = picture(image=image)
    assert image.getbbox() == (0, 0, 40, 30)  # what haze does to a plain bounding box
    assert whole.box() == (10, 5, 20, 25) and whole.box(1) == (0, 0, 40, 30)
    cut = whole.trimmed(margin=7)
    assert cut.image.size == (24, 30) and (cut.seed, cut.parameters) == (whole.seed, whole.parameters)
    assert whole.trimmed(201).image.size == (40, 30)
    for wrong in (0, 256, "16", None):
        with pytest.raises(InputError, match="threshold"):
            whole.trimmed(wrong)
    assert picture(mode="RGB").trimmed().image.size == (48, 32)


def test_cleaning_takes_haze_away_and_leaves_colours():
    image = Image.new("RGBA", (40, 30), (9, 8, 7, 2))
    image.paste((255, 0, 0, 254), (10, 5, 20, 25))
    clean = picture(image=image).cleaned()
    assert clean.image.getchannel("A").getbbox() == (10, 5, 20, 25)
    assert clean.image.getpixel((12, 12)) == (255, 0, 0, 255) and clean.image.getpixel((0, 0)) == (9, 8, 7, 0)
    assert clean.parameters == picture().parameters and picture(mode="RGB").cleaned().image.mode == "RGB"
