"""Folders whole or not at all, on disks and in buckets."""

import pytest

from tests.files.test_atomic import folder  # noqa: F401
from vosr_jax.errors import UserError
from vosr_jax.files import folder_size, listing, whole_folder, write_text
from vosr_jax.files.paths import filesystem


def names(place):
    return [p.name for p in listing(place)]


def test_a_folder_appears_with_all_that_is_in_it(folder):  # noqa: F811
    with whole_folder(folder / "out") as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "a").write_text("12")
        (draft / "config.json").write_text("{}")
        assert not listing(folder / "out")
    assert names(folder) == ["out"] and names(folder / "out") == ["config.json", "deep"]
    assert (folder / "out" / "deep" / "a").read_text() == "12"
    assert folder_size(folder / "out") == 4


def test_an_error_leaves_nothing(folder):  # noqa: F811
    with pytest.raises(KeyError), whole_folder(folder / "out") as draft:
        (draft / "a").write_text("half")
        raise KeyError("stopped")
    assert names(folder) == []


def test_what_is_there_already_is_not_touched(folder):  # noqa: F811
    write_text(folder / "out" / "mine", "")
    with pytest.raises(UserError, match="is not empty"), whole_folder(folder / "out"):
        pass
    assert names(folder / "out") == ["mine"]


def test_in_a_bucket_what_readers_look_for_comes_last(bucket, tmp_path, monkeypatch):
    home = f"{bucket}/{tmp_path.name}/out"
    store, order = filesystem(home), []
    put = store.put_file
    monkeypatch.setattr(store, "put_file", lambda a, b: order.append(b) or put(a, b))
    with whole_folder(home) as draft:
        for name in ("manifest.json", "config.json", "weights", "z"):
            (draft / name).write_text(name)
    assert [place.rpartition("/")[2] for place in order][2:] == ["config.json", "manifest.json"]
