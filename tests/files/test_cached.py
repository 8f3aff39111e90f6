"""Copies of what lies in a bucket."""

import os
import subprocess
import sys

import pytest

from vosr_jax.errors import UserError
from vosr_jax.files import cached, to_path, write_text
from vosr_jax.files.cached import local_copy, local_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VOSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_of_a_disk_is_itself(tmp_path):
    assert local_copy(tmp_path / "a") == tmp_path / "a"
    assert local_folder(tmp_path) == tmp_path


def test_a_copy_is_made_once_and_again_when_the_object_changes(bucket, tmp_path, monkeypatch):
    place = to_path(f"{bucket}/{tmp_path.name}/shard-0")
    write_text(place, "first")
    copy = local_copy(place)
    assert copy.read_text() == "first" and copy.name == "shard-0"
    before = os.stat(copy).st_mtime_ns
    assert local_copy(place) == copy and os.stat(copy).st_mtime_ns == before
    write_text(place, "other")  # of the same size
    assert local_copy(place).read_text() == "other"


def test_a_copy_that_was_cut_short_is_made_again(bucket, tmp_path):
    place = to_path(f"{bucket}/{tmp_path.name}/shard-0")
    write_text(place, "whole")
    local_copy(place).write_text("who")
    assert local_copy(place).read_text() == "whole"


def test_a_folder_is_copied_with_what_is_wanted_of_it(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}/model")
    for name in ("config.json", "encoder/model.safetensors", "unwanted.bin"):
        write_text(home / name, name)
    copy = local_folder(home, lambda name: not name.endswith(".bin"))
    assert (copy / "encoder" / "model.safetensors").read_text() == "encoder/model.safetensors"
    assert not (copy / "unwanted.bin").exists()


def test_what_is_not_there_is_named(bucket, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path.name}/no cannot be read"):
        local_copy(f"{bucket}/{tmp_path.name}/no")
    with pytest.raises(UserError, match="nothing at"):
        local_folder(f"{bucket}/{tmp_path.name}/no")


def test_a_disk_without_room_is_told_before_the_copy(bucket, tmp_path, monkeypatch, cache):
    place = to_path(f"{bucket}/{tmp_path.name}/shard-0")
    write_text(place, "whole")
    monkeypatch.setattr(cached, "_SPARE", 1 << 60)
    with pytest.raises(UserError, match="does not fit into .*set VOSR_CACHE"):
        local_copy(place)
    assert not list(cache.rglob("shard-0"))


def test_several_processes_make_one_copy(bucket, tmp_path, cache):
    place = to_path(f"{bucket}/{tmp_path.name}/shard-0")
    write_text(place, "x" * 1000000)
    program = f"from vosr_jax.files.cached import *; print(len(local_copy('{place}').read_text()))"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [p.communicate()[0].strip() for p in processes] == ["1000000"] * 3
    assert len(list(cache.rglob("shard-0"))) == 1
