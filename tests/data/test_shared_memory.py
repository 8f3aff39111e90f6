"""The memory in which workers hand batches over is measured before they start."""

import os
import time

import pytest

from vosr_jax.data import workers
from vosr_jax.data.pipeline import _BUFFERS, PipelineSettings, batches
from vosr_jax.data.workers import bytes_needed, check_shared_memory
from vosr_jax.errors import UserError


def with_room(monkeypatch, free: int, whole: int | None = None) -> None:
    sizes = {False: free, True: whole or free}
    monkeypatch.setattr(workers, "_free_bytes", lambda *, whole: sizes[whole])


def test_a_container_of_64_mb_is_refused_before_a_worker_starts(monkeypatch):
    with_room(monkeypatch, 64 << 20)
    settings = PipelineSettings(crop_size=512, batch_size=8, workers=8)
    with pytest.raises(UserError) as error:
        batches(settings)
    said = str(error.value)
    assert "data.workers=8" in said and "/dev/shm has 67 MB" in said
    assert "--shm-size=1g" in said and "\n" not in said


def test_what_would_fit_is_proposed_and_accepted(monkeypatch):
    with_room(monkeypatch, bytes_needed(3, 2, 4, 256))
    with pytest.raises(UserError, match="or set data.workers to 3"):
        check_shared_memory(8, 2, 4, 256, {})
    check_shared_memory(3, 2, 4, 256, {})
    check_shared_memory(0, 2, 4, 1 << 20, {})


def test_the_programs_that_slurm_starts_on_a_machine_share_it(monkeypatch):
    one = bytes_needed(2, 2, 4, 64)
    # The others may have written already: what counts is all that there is.
    with_room(monkeypatch, one // 2, whole=8 * one)
    check_shared_memory(2, 2, 4, 64, {"SLURM_STEP_TASKS_PER_NODE": "8(x2)"})
    with pytest.raises(UserError, match="in each of 9 programs"):
        check_shared_memory(2, 2, 4, 64, {"SLURM_STEP_TASKS_PER_NODE": "4,9"})


def test_without_such_a_file_system_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(workers, "_FOLDER", "/no/such/folder")
    check_shared_memory(8, 2, 1024, 4096, {})


def segments(size: int) -> int:
    """How many pieces of shared memory have this very size, which no other program's have."""
    found = 0
    for entry in os.scandir("/dev/shm"):
        try:
            found += entry.stat().st_size == size
        except FileNotFoundError:
            continue
    return found


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no /dev/shm")
def test_workers_take_what_was_reckoned(photographs):
    (photographs / "picture99.png").unlink()
    settings = PipelineSettings(str(photographs), batch_size=3, crop_size=116, workers=1)
    pictures, most = 3 * 116 * 116 * 3, 0
    batch = 2 * pictures + workers._SMALL_BYTES
    # hr and lq of a batch are a piece each.
    limit = 2 * bytes_needed(1, _BUFFERS, 3, 116) // batch
    with batches(settings) as data:
        next(data)
        end = time.monotonic() + 20
        while most < limit - 2 and time.monotonic() < end:
            time.sleep(0.02)
            most = max(most, segments(pictures))
        time.sleep(0.5)
        most = max(most, segments(pictures))
    # Less by the batch that is being read, which this program has copied out at once.
    assert limit - 2 <= most <= limit
