"""A checkpoint that lies is noticed, one that cannot be read is left alone."""

import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from tests.training.saved_states import (
    abstract,
    copy_of,
    files_of,
    flip_bit,
    restored,
    same,
    saved_run,
    state_of,
)
from vosr_jax.errors import UserError
from vosr_jax.files.checksums import parse
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.weights.checkpoint_files import SUMS, verify
from vosr_jax.weights.saved_run import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return saved_run(tmp_path_factory.mktemp("saved") / "run")


def test_every_file_of_a_checkpoint_has_a_checksum(run: Path):
    checkpoint = run / "checkpoints" / "20"
    sums = parse((checkpoint / SUMS).read_bytes())
    names = {str(file.relative_to(checkpoint)) for file in files_of(checkpoint)} - {SUMS}
    assert names <= sums.keys() and len(names) > 8
    assert verify(checkpoint).kind == "whole"


def flips(run: Path, target: Path, count: int, seed: int) -> int:
    """How many of so many flipped bits pass unnoticed; half by file, half by byte."""
    draw, silent = random.Random(seed), 0
    for number in range(count):
        folder = copy_of(run, target)
        files = files_of(folder / "checkpoints" / "20")
        weights = [f.stat().st_size if number % 2 else 1 for f in files]
        file = draw.choices(files, weights)[0]
        flip_bit(file, draw.randrange(8 * file.stat().st_size))
        state, checkpoints = restored(folder)
        went_back = same(state, state_of(10)) and checkpoints.progress().samples_seen == 80
        silent += not (went_back and (folder / "checkpoints" / "20.damaged").is_dir())
    return silent


def test_a_flipped_bit_anywhere_sends_the_run_to_the_checkpoint_before(run: Path, tmp_path: Path):
    assert flips(run, tmp_path / "run", 12, seed=0) == 0


@pytest.mark.slow
def test_a_hundred_flipped_bits_are_all_noticed(run: Path, tmp_path: Path):
    assert flips(run, tmp_path / "run", 100, seed=1) == 0


def test_whoever_reads_a_run_goes_back_too_and_renames_nothing(run: Path, tmp_path: Path, capsys):
    folder = copy_of(run, tmp_path / "run")
    assert load_run(folder).step == 20
    file = max(files_of(folder / "checkpoints" / "20"), key=lambda f: f.stat().st_size)
    flip_bit(file, 8 * 1000)
    found = load_run(folder)
    assert (found.step, found.progress.samples_seen, found.config) == (10, 80, {"seed": 2})
    np.testing.assert_array_equal(found.ema["kernel"], state_of(10).ema["kernel"])
    told = capsys.readouterr().err
    assert "checkpoints/20 is damaged" in told and "fails its checksum" in told
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["10", "20"]
    shutil.rmtree(folder / "checkpoints" / "10")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        load_run(folder)


@pytest.mark.parametrize("change", ["short", "missing"])
def test_a_short_or_missing_file_is_damage(run: Path, tmp_path: Path, change: str):
    folder = copy_of(run, tmp_path / "run")
    file = next((folder / "checkpoints" / "20").rglob("manifest.ocdbt"))
    if change == "short":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    state, _ = restored(folder)
    assert same(state, state_of(10)) and (folder / "checkpoints" / "20.damaged").is_dir()


def test_a_second_damaged_checkpoint_of_a_step_keeps_the_first(run: Path, tmp_path: Path):
    folder = copy_of(run, tmp_path / "run")
    checkpoints = folder / "checkpoints"
    for name in ("20.damaged", "20-2.damaged"):
        flip_bit(checkpoints / "20" / SUMS, 3)
        restored(folder)
        assert (checkpoints / name).is_dir()
        shutil.copytree(run / "checkpoints" / "20", checkpoints / "20")


def test_a_checkpoint_from_before_checksums_is_used_and_said(run: Path, tmp_path: Path, capsys):
    folder = copy_of(run, tmp_path / "run")
    (folder / "checkpoints" / "20" / SUMS).unlink()
    assert same(restored(folder)[0], state_of(20)) and load_run(folder).step == 20
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all("from before checkpoints had checksums" in line for line in told)


def test_one_from_before_checksums_that_is_short_is_still_damage(run: Path, tmp_path: Path):
    folder = copy_of(run, tmp_path / "run")
    (folder / "checkpoints" / "20" / SUMS).unlink()
    for file in files_of(folder / "checkpoints" / "20" / "state"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert same(restored(folder)[0], state_of(10))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "checkpoints").iterdir())


def refuse_reading(monkeypatch, error: OSError) -> None:
    """Reading large files of checkpoints fails as on a mount that has gone."""
    import vosr_jax.files.checksums as checksums

    def fail(path, kind=None):
        raise error

    monkeypatch.setattr(checksums, "checksum_of", fail)


@pytest.mark.parametrize("summed", [True, False])
def test_what_cannot_be_read_is_left_as_it_is(run, tmp_path: Path, monkeypatch, summed: bool):
    folder = copy_of(run, tmp_path / "run")
    if not summed:
        (folder / "checkpoints" / "20" / SUMS).unlink()
    with monkeypatch.context() as broken:
        refuse_reading(broken, OSError(5, "Input/output error"))
        for read in (restored, load_run):
            with pytest.raises(UserError, match="Input/output error.*nothing was changed"):
                read(folder)
    assert names(folder) == ["10", "20"]
    assert same(restored(folder)[0], state_of(20))


@pytest.fixture
def open_folder():
    """A temporary folder that other users may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if any(parent.stat().st_mode & 0o5 != 0o5 for parent in Path(folder).parents):
            pytest.skip(f"{folder} is closed to other users")
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user and back")
@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/20", "checkpoints/20/state"])
def test_without_permission_nothing_is_set_aside(run: Path, open_folder: Path, place: str):
    folder = copy_of(run, open_folder / "run")
    mode = (folder / place).stat().st_mode
    (folder / place).chmod(0)
    os.seteuid(65534)
    try:
        for read in (restored, load_run):
            with pytest.raises(UserError, match="Permission denied"):
                read(folder)
    finally:
        os.seteuid(0)
        (folder / place).chmod(mode)
    assert names(folder) == ["10", "20"] and same(restored(folder)[0], state_of(20))


def test_a_whole_checkpoint_that_orbax_cannot_restore_is_no_damage(run, tmp_path, monkeypatch):
    folder = copy_of(run, tmp_path / "run")
    checkpoints = Checkpoints(folder)

    def fail(*_):
        raise RuntimeError("out of handles")

    monkeypatch.setattr(checkpoints, "_restored", fail)
    with pytest.raises(UserError, match="out of handles.*nothing shows that it is damaged"):
        checkpoints.restore(abstract(state_of(0)))
    assert names(folder) == ["10", "20"]


def test_a_kill_while_checksums_are_written_leaves_no_checkpoint(tmp_path: Path, monkeypatch):
    """Sealed before it is committed: without checksums the new one does not count."""
    from vosr_jax.training import checkpoint_sealing as sealing

    folder = saved_run(tmp_path / "run", (10,))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealing, "write_text", fail)
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_of(20), samples_seen=160)
    with pytest.raises(UserError, match="the last checkpoint could not be saved"):
        checkpoints.close()
    assert [name for name in names(folder) if name.isdigit()] == ["10"]
    monkeypatch.undo()
    assert same(restored(folder)[0], state_of(10))


def test_each_process_sums_what_it_wrote_and_the_first_one_the_rest(tmp_path: Path, monkeypatch):
    import jax

    from vosr_jax.training import checkpoint_sealing as sealing

    step = epath.Path(tmp_path / "8.orbax-checkpoint-tmp")
    for name in ("ocdbt.process_0/d/a", "ocdbt.process_1/d/b", "array_metadatas/process_1", "_M"):
        file = step / "state.orbax-checkpoint-tmp" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    with monkeypatch.context() as second:
        second.setattr(jax, "process_index", lambda: 1)
        sealing._SumsOfProcess(step / "state.orbax-checkpoint-tmp").result()
    (step / "state.orbax-checkpoint-tmp").rename(step / "state")
    # The first process must not need what the second one has summed.
    read, original = [], sealing.checksums_of

    def watched(folder, names, kind=None):
        read.extend(names)
        return original(folder, names, kind)

    monkeypatch.setattr(sealing, "checksums_of", watched)
    sealing.seal(step, epath.Path(tmp_path / "8"))
    assert sorted(read) == ["state/_M", "state/ocdbt.process_0/d/a"]
    (step / "commit_success.txt").write_text(f"Checkpoint commit was successful to {tmp_path}/8")
    assert verify(step).kind == "whole"
    assert not list(step.glob("checksums.process*"))
    assert sum("process_1" in name for name in parse((step / SUMS).read_bytes())) == 2
    (step / "state" / "ocdbt.process_1" / "d" / "b").write_text("else")
    assert verify(step, 0, 2).kind != verify(step, 1, 2).kind, "each process reads its part"


def test_what_orbax_logs_of_a_failed_save_is_dropped_and_nothing_else(caplog):
    import logging

    import orbax.checkpoint as ocp

    Checkpoints("unused")
    for logger in (logging.getLogger("absl"), logging.getLogger("asyncio")):
        try:
            ocp.StandardCheckpointHandler().restore(epath.Path("/nowhere"))
        except Exception:
            logger.error("never retrieved", exc_info=True)
        logger.error("somebody else's")
    assert [record.message for record in caplog.records] == ["somebody else's"] * 2
