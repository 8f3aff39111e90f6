"""Which members of a tar file are pictures of their own, and the index that remembers them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_source_kinds import FILES, write_tar
from vosr_jax.data.sources import parse_sources
from vosr_jax.data.sources.members import first_pictures
from vosr_jax.data.sources.tar import load_index

DATED = ["photo.2024.01.01.png", "photo.2024.01.02.png"]


@pytest.mark.parametrize(
    ("members", "taken"),
    [
        (DATED, DATED),
        (["a.json", "a.png", "a.jpg"], ["a.png"]),
        (["a.png", "a.txt", "b.png", "b.txt"], ["a.png", "b.png"]),
        (["b/c.seg.png", "b/c.png"], ["b/c.seg.png"]),
        (["photo.2024.01.01.png", "photo.2024.01.01.json", *DATED[1:]], DATED),
        (["photo.png", *DATED], ["photo.png", *DATED]),
        (["7.json", "7.0.png", "7.1.png", "8.json", "8.0.png"], ["7.0.png", "8.0.png"]),
        (
            ["1.input.png", "1.target.png", "2.input.png", "2.target.png"],
            ["1.input.png", "2.input.png"],
        ),
        (["trip.rome.png", "trip.oslo.png"], ["trip.rome.png", "trip.oslo.png"]),
        # Cameras that take a picture on the same days share suffixes, but those are numbers.
        (
            ["x.2024.01.png", "x.2024.02.png", "y.2024.01.png", "y.2024.02.png"],
            ["x.2024.01.png", "x.2024.02.png", "y.2024.01.png", "y.2024.02.png"],
        ),
        (["a.v1/x.png", "a.v1/y.png", "a.v2/x.png"], ["a.v1/x.png", "a.v1/y.png", "a.v2/x.png"]),
        (["notes.txt", ".hidden.png"], []),
    ],
)
def test_a_picture_each_unless_members_accompany_one_another(members, taken):
    assert [members[number] for number in first_pictures(members)] == taken


def test_many_members_of_one_name_take_little_time():
    members = [f"photo.{number:06d}.png" for number in range(50_000)]
    assert len(first_pictures(members)) == len(members)


def test_counts_are_said_with_what_was_passed_over(tmp_path):
    one, other = list(FILES.values())[:2]
    write_tar(tmp_path / "a.tar", {DATED[0]: one, DATED[1]: other})
    write_tar(tmp_path / "b.tar", {"a.json": b"{}", "a.png": one, "a.jpg": other})
    (source,) = parse_sources(f"{tmp_path}/a.tar")
    assert source.about() == f"{tmp_path}/a.tar: 2 pictures of 2 files in 1 tar files"
    for _ in range(2):  # the second time from the kept index
        (source,) = parse_sources(f"tar:{tmp_path}")
        assert "3 pictures of 5 files in 2 tar files; 1 more pictures belong" in source.about()


def test_an_index_of_the_earlier_rule_is_made_anew(tmp_path):
    path = tmp_path / "s.tar"
    write_tar(path, dict.fromkeys(DATED, FILES["p00.png"]))
    about = path.stat()
    with open(f"{path}.index.npz", "wb") as file:
        np.savez(
            file,
            stamp=np.array([1, about.st_size, about.st_mtime_ns]),
            text=np.frombuffer(DATED[0].encode(), np.uint8),
            ends=np.array([0, len(DATED[0])]),
            offsets=np.array([512]),
            sizes=np.array([100]),
        )
    assert list(load_index(str(path)).names) == DATED


def test_an_index_cut_short_or_changed_anywhere_is_made_anew(tmp_path):
    path, index = tmp_path / "s.tar", tmp_path / "s.tar.index.npz"
    write_tar(path, FILES)
    load_index(str(path))
    whole = index.read_bytes()
    for length in [0, 1, 10, *range(50, len(whole), 97)]:
        index.write_bytes(whole[:length])
        assert list(load_index(str(path)).names) == list(FILES), length
        assert index.read_bytes()[:2] == b"PK"
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        index.write_bytes(bytes(changed))
        found = load_index(str(path))
        assert list(found.names) == list(FILES), position
        assert (found.sizes == [len(data) for data in FILES.values()]).all(), position


def mounts() -> bool:
    """Whether this process may mount file systems of its own."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0


_PROGRAM = """
import sys
from vosr_jax.data.sources import parse_sources
(source,) = parse_sources(sys.argv[1])
print(len(source), source.read(0).shape[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts are Linux's")
@pytest.mark.parametrize("cache", ["writable", "read-only"])
def test_tars_on_a_read_only_mount_are_read(tmp_path, cache):
    if not mounts():
        pytest.skip("this machine allows no mounts")
    data = tmp_path / "data"
    data.mkdir()
    write_tar(data / "s.tar", FILES)
    kept = tmp_path / "cache" if cache == "writable" else data / "cache"
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$4"'
    command = ["unshare", "-m", "bash", "-c", script, "bash"]
    done = subprocess.run(
        [*command, str(data), sys.executable, _PROGRAM, f"{data}/s.tar"],
        env=os.environ | {"VOSR_CACHE": str(kept), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.split() == [str(len(FILES)), "56"], done.stderr
    assert os.listdir(data) == ["s.tar"]
    if cache == "writable":
        assert len(list(kept.glob("*.index.npz"))) == 1 and not done.stderr
    else:
        assert "set VOSR_CACHE" in done.stderr


def test_where_nothing_can_be_written_the_tar_is_read_all_the_same(tmp_path, monkeypatch, caplog):
    path = tmp_path / "s.tar"
    write_tar(path, FILES)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("open", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    assert len(load_index(str(path)).names) == len(FILES)
    assert "set VOSR_CACHE" in caplog.text
    monkeypatch.undo()
    assert stat.S_ISREG(path.stat().st_mode) and not list(tmp_path.glob("*.part"))
