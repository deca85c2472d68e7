"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_layerdiffuse.core.errors import OutputError
from lib_layerdiffuse.files.whole_files import write_new_folder, write_whole


@pytest.mark.skipif(os.name == "nt", reason="has no such modes")
def test_a_file_that_a_library_wrote_for_its_owner_alone_has_the_mode_of_the_users_files(tmp_path):
    def write_for_oneself(partial: Path) -> None:
        partial.write_bytes(b"content")
        partial.chmod(0o600)

    (tmp_path / "usual").touch()
    write_whole(tmp_path / "file", write_for_oneself)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "file").read_bytes() == b"content"


def test_nothing_is_left_of_a_folder_that_could_not_be_written_whole(tmp_path):
    def contents() -> Iterator[tuple[str, bytes]]:
        yield "first", b"1"
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_new_folder(tmp_path, "set", contents())
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_takes_the_next_name_and_leaves_the_one_that_is_there(tmp_path):
    folders = [write_new_folder(tmp_path, "set", [("a", text)]) for text in (b"1", b"2")]
    assert [folder.name for folder in folders] == ["set", "set_2"]
    assert [(folder / "a").read_bytes() for folder in folders] == [b"1", b"2"]
