"""Checkpoints in an object store, which has no rename: sealed, verified, set aside as on a disk."""

import pytest

from tests.training.saved_states import abstract, same, saved_run, state_of
from vosr_jax.errors import UserError
from vosr_jax.files.checksums import checksum_of, names_below, parse
from vosr_jax.files.paths import to_path
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.workdir import _remove_left_overs
from vosr_jax.weights.checkpoint_files import (
    COMMITTED,
    SUMS,
    damaged_folders,
    finished_steps,
    unfinished_folders,
    verify,
)
from vosr_jax.weights.saved_run import load_run


@pytest.fixture(scope="module")
def run(bucket: str):
    return saved_run(to_path(f"{bucket}/sealed"))


def restored(folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(abstract(state_of(0)))
    finally:
        checkpoints.close()


def test_a_flipped_bit_in_a_bucket_is_noticed_and_the_checkpoint_set_aside(run, capsys):
    checkpoint = run / "checkpoints" / "20"
    names = set(names_below(checkpoint))
    assert parse((checkpoint / SUMS).read_bytes()).keys() == names - {SUMS}
    assert verify(checkpoint).kind == "whole" and finished_steps(run) == [10, 20]
    assert same(restored(run), state_of(20)) and load_run(run).step == 20

    largest = max(names, key=lambda name: (checkpoint / name).stat().length)
    data = bytearray((checkpoint / largest).read_bytes())
    data[1000] ^= 4
    (checkpoint / largest).write_bytes(bytes(data))
    assert load_run(run).step == 10 and finished_steps(run) == [10, 20]
    assert same(restored(run), state_of(10))
    assert finished_steps(run) == [10]
    assert [path.name for path in damaged_folders(run)] == ["20.damaged"]
    assert set(names_below(run / "checkpoints" / "20.damaged")) == names - {COMMITTED}
    assert "fails its checksum" in capsys.readouterr().err


def test_the_step_that_was_set_aside_is_saved_again(bucket: str):
    folder = saved_run(to_path(f"{bucket}/again"))
    (folder / "checkpoints" / "20" / SUMS).write_bytes(b"no list")
    checkpoints = Checkpoints(folder)
    checkpoints.restore(abstract(state_of(0)))
    checkpoints.save(state_of(20), samples_seen=160)
    checkpoints.close()
    assert same(restored(folder), state_of(20))


def test_a_save_that_was_cut_off_in_a_bucket_is_none_and_is_removed(bucket: str):
    folder = saved_run(to_path(f"{bucket}/cut"))
    (folder / "checkpoints" / "20" / COMMITTED).unlink()
    assert finished_steps(folder) == [10]
    assert [path.name for path in unfinished_folders(folder)] == ["20"]
    assert same(restored(folder), state_of(10))
    _remove_left_overs(folder)
    assert not names_below(folder / "checkpoints" / "20") and finished_steps(folder) == [10]


def test_what_the_store_says_of_an_object_is_the_checksum_of_its_bytes(bucket: str, tmp_path):
    data = bytes(range(256)) * 5000
    for file in (to_path(f"{bucket}/object"), tmp_path / "file"):
        file.write_bytes(data)
    assert checksum_of(to_path(f"{bucket}/object")) == checksum_of(tmp_path / "file")


def test_a_bucket_that_does_not_answer_is_no_damage(run, monkeypatch):
    import vosr_jax.files.checksums as checksums

    def fail(path, kind=None):
        raise OSError(110, "Connection timed out")

    monkeypatch.setattr(checksums, "checksum_of", fail)
    steps = finished_steps(run)
    with pytest.raises(UserError, match="Connection timed out.*nothing was changed"):
        restored(run)
    assert finished_steps(run) == steps
