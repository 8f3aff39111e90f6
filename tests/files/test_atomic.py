"""Files whole or not at all, on disks and in buckets."""

import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vosr_jax.errors import UserError
from vosr_jax.files import create, remove_parts, to_path, whole_file, write_json, write_text


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    if request.param == "disk":
        return to_path(tmp_path)
    return to_path(request.getfixturevalue("bucket")) / tmp_path.name


def test_what_is_written_is_read_back_and_folders_are_made(folder):
    write_text(folder / "a" / "ü.txt", "grüße")
    write_json(folder / "a" / "b.json", {"x": [1]})
    assert (folder / "a" / "ü.txt").read_text() == "grüße"
    assert json.loads((folder / "a" / "b.json").read_text()) == {"x": [1]}
    assert sorted(p.name for p in (folder / "a").iterdir()) == ["b.json", "ü.txt"]


def test_an_error_in_the_middle_leaves_the_file_before(folder):
    write_text(folder / "file", "before")
    with pytest.raises(KeyError), whole_file(folder / "file") as part:
        part.write_text("half")
        raise KeyError("stopped")
    assert (folder / "file").read_text() == "before"
    assert [p.name for p in folder.iterdir()] == ["file"]


def test_of_several_that_create_a_file_one_succeeds(folder):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: create(folder / "lock", b"%d" % n), range(8)))
    assert sum(won) == 1
    assert (folder / "lock").read_text() == str(won.index(True))
    assert [p.name for p in folder.iterdir()] == ["lock"]


def test_threads_that_write_one_file_leave_one_whole(folder):
    texts = [str(n) * 10000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(folder / "file", text), texts))
    assert (folder / "file").read_text() in texts
    assert [p.name for p in folder.iterdir()] == ["file"]


def test_a_name_as_long_as_the_disk_allows(tmp_path):
    write_text(tmp_path / ("n" * 255), "long")
    assert (tmp_path / ("n" * 255)).read_text() == "long"


def test_the_rights_of_a_file_are_those_of_any_other(tmp_path):
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_device_stays_one(tmp_path):
    write_text("/dev/null", "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{tmp_path}/x cannot be written"):
        write_text(tmp_path / "x", "text")


def test_a_full_disk_is_one_sentence():
    with pytest.raises(UserError, match="/dev/full cannot be written .No space left"):
        write_text("/dev/full", "text" * 10000)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    with whole_file(tmp_path / "file") as part:
        left = part.name
        part.write_text("")
    (tmp_path / left).write_text("half")
    (tmp_path / ".other.part").write_text("another file's")
    remove_parts(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.part", "file"]


def test_where_a_disk_has_no_links_one_of_several_still_creates(tmp_path: Path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert create(tmp_path / "lock", b"one") and not create(tmp_path / "lock", b"two")
    assert (tmp_path / "lock").read_bytes() == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
