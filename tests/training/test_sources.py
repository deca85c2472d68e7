"""What is read of an archive that claims too much, and what of one with bad members."""

from __future__ import annotations

import gzip
import io
import itertools
import tarfile
import zipfile
from pathlib import Path

import pytest

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.pictures.sources import Limits, iterate_files

from .toys import png


def write(tmp_path, kind: str, contents: dict[str, bytes]):
    """A folder, tar or zip file with these files."""
    path = tmp_path / f"source{kind}"
    if kind == "":
        for name, content in contents.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in contents.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["", ".zip", ".tgz"])
def test_a_file_that_is_too_large_is_skipped_and_listed(tmp_path, kind):
    path = write(tmp_path, kind, {"a.png": png(1), "desert.png": bytes(10**6), "z.png": png(2)})
    skipped = []
    found = dict(iterate_files(path, skipped=skipped, limits=Limits(member_bytes=10**5)))
    assert found == {"a.png": png(1), "z.png": png(2)}
    assert len(skipped) == 1 and skipped[0].startswith("desert.png: 1 MiB")


@pytest.mark.parametrize("kind", ["", ".zip", ".tgz"])
@pytest.mark.parametrize("limits", [Limits(members=2), Limits(total_bytes=len(png(1)) * 2)])
def test_a_source_that_holds_too_much_is_refused(tmp_path, kind, limits):
    path = write(tmp_path, kind, {f"{number}.png": png(1) for number in range(3)})
    with pytest.raises(InputError, match="more than"):
        list(iterate_files(path, limits=limits))


def test_of_a_folder_with_far_too_many_files_not_all_names_are_read(tmp_path, monkeypatch):
    def endless(self, _pattern):
        for number in itertools.count():
            assert number < 100, "goes on listing"
            yield self / f"{number}.txt"

    monkeypatch.setattr(Path, "rglob", endless)
    with pytest.raises(InputError, match="more than 5 files"):
        list(iterate_files(tmp_path, limits=Limits(members=5)))


def test_a_packed_desert_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "desert.tgz"
    entry = tarfile.TarInfo("desert.png")
    entry.size = 2**50  # claimed; nothing of it is there
    path.write_bytes(gzip.compress(entry.tobuf() + bytes(1024)))  # two empty blocks end an archive
    with pytest.raises(InputError, match="GiB unpacked"):
        list(iterate_files(path))


def test_a_broken_member_of_a_zip_file_is_skipped(tmp_path):
    path = write(tmp_path, ".zip", {"a.png": png(1), "b.png": png(2)})
    content = bytearray(path.read_bytes())
    start = content.index(b"b.png") + len(b"b.png")
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    skipped = []
    assert [name for name, _ in iterate_files(path, skipped=skipped)] == ["a.png"]
    assert len(skipped) == 1 and skipped[0].startswith("b.png: ")
