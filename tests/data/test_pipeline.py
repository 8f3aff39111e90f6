"""The same batches whatever the hosts, the workers, the restarts and the broken files."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pipeline import memory, write_list
from tests.data.conftest import picture
from vosr_jax.data.pipeline import PipelineSettings, batches
from vosr_jax.errors import UserError

ROOT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT}
KEYS = ("hr", "lq", "index", "replaced")


def settings(folder, **changes):
    base = PipelineSettings(sources=str(folder), seed=7, batch_size=8, crop_size=32)
    changes = {"max_bad_fraction": 0.5} | changes
    return dataclasses.replace(base, **changes)


def divided(size, hosts):
    """Rows of every host: each has two blocks that do not touch, unless it has all."""
    blocks = np.arange(size).reshape(2, hosts, -1) if hosts > 1 else np.arange(size)[None, None]
    return [np.concatenate([half[host] for half in blocks]) for host in range(hosts)]


def global_batches(pipeline, count, hosts=1, samples_seen=0):
    """The first batches, with every host's rows put where they belong."""
    found = [{} for _ in range(count)]
    for rows in divided(pipeline.batch_size, hosts):
        with batches(pipeline, samples_seen=samples_seen, rows=rows) as own:
            for whole, part in zip(found, own, strict=False):
                for key in KEYS:
                    empty = np.zeros((pipeline.batch_size, *part[key].shape[1:]), part[key].dtype)
                    whole.setdefault(key, empty)[rows] = part[key]
    return found


def assert_equal(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        for key in KEYS:
            assert np.array_equal(one[key], other[key]), key


def test_a_batch_has_the_stated_shapes_types_and_positions(photographs):
    first, second = global_batches(settings(photographs), 2)
    assert first["hr"].shape == first["lq"].shape == (8, 32, 32, 3)
    assert first["hr"].dtype == first["lq"].dtype == np.uint8
    assert first["index"].dtype == np.int64 and first["replaced"].dtype == bool
    assert first["index"].tolist() == list(range(8))
    assert second["index"].tolist() == list(range(8, 16))


def test_every_pass_sees_every_picture_once_in_another_order(tmp_path):
    for number in range(8):
        pixels = np.full((32, 32, 3), number * 20, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    orders = [b["hr"][:, 0, 0, 0].tolist() for b in global_batches(settings(tmp_path), 3)]
    assert all(sorted(order) == [number * 20 for number in range(8)] for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_hosts_and_a_restart_leave_every_row_in_its_place(photographs):
    expected = global_batches(settings(photographs), 6)
    assert any(batch["replaced"].any() for batch in expected)
    for hosts in (2, 4):
        assert_equal(global_batches(settings(photographs), 6, hosts), expected)
    assert_equal(global_batches(settings(photographs), 3, 2, samples_seen=24), expected[3:])


def test_worker_processes_give_the_same_batches(photographs):
    expected = global_batches(settings(photographs), 5)
    ours = global_batches(settings(photographs, workers=2), 4, samples_seen=8)
    assert_equal(ours, expected[1:])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_all_combinations_of_hosts_workers_and_restarts_agree(photographs, workers):
    count = 5
    expected = global_batches(settings(photographs), count)
    assert any(batch["replaced"].any() for batch in expected)
    pipeline = settings(photographs, workers=workers)
    for hosts, restart in ((1, 0), (2, 3), (4, 1)):
        # A worker process takes seconds to start, so with workers there is one restart a host.
        for skipped in (restart,) if workers else range(count):
            ours = global_batches(pipeline, count - skipped, hosts, samples_seen=8 * skipped)
            assert_equal(ours, expected[skipped:])


def test_a_mix_of_kinds_of_sources_keeps_its_order_too(photographs, tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for path in sorted(photographs.rglob("*.png"))[:8]:
            writer.write(path.read_bytes())
            tar.add(path, path.name)
    writer.close()
    mix = f"{photographs}:2,{tmp_path}/a.array_record:1,{tmp_path}/b.tar:1"
    expected = global_batches(settings(mix), 5)
    assert_equal(global_batches(settings(mix), 3, 2, samples_seen=16), expected[2:])
    assert_equal(global_batches(settings(mix, workers=1), 4, samples_seen=8), expected[1:])


def test_another_seed_gives_other_batches(photographs):
    one, other = (
        global_batches(settings(photographs, **change), 1)[0] for change in ({}, {"flip": False})
    )
    assert not np.array_equal(one["hr"], other["hr"])
    seeded = dataclasses.replace(settings(photographs), seed=8)
    assert not np.array_equal(global_batches(seeded, 1)[0]["hr"], one["hr"])


def test_weights_share_out_the_samples(tmp_path):
    for name, level in (("dark", 0), ("bright", 255)):
        (tmp_path / name).mkdir()
        pixels = np.full((40, 40, 3), level, np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    mix = settings(f"{tmp_path}/dark:3,{tmp_path}/bright:1", batch_size=40)
    (batch,) = global_batches(mix, 1)
    assert (batch["hr"][:, 0, 0, 0] == 0).sum() == 30


def test_a_broken_picture_is_replaced_marked_counted_and_listed_once(photographs, tmp_path):
    listed = tmp_path / "bad_records.jsonl"
    for _ in range(2):
        with batches(settings(photographs), bad_records_path=listed) as own:
            marked = sum(int(next(own)["replaced"].sum()) for _ in range(10))
            assert marked == own.log.replaced > 0
    (line,) = listed.read_text().splitlines()
    assert json.loads(line)["record"].endswith("picture99.png")
    assert json.loads(line)["reason"]


def test_a_broken_picture_moves_no_other_sample(photographs):
    with_broken = global_batches(settings(photographs), 5)
    Image.fromarray(picture(99)).save(photographs / "picture99.png")
    for before, after in zip(with_broken, global_batches(settings(photographs), 5), strict=True):
        kept = ~before["replaced"]
        assert np.array_equal(before["lq"][kept], after["lq"][kept])


def test_too_many_broken_pictures_stop_the_run_and_name_the_source(photographs):
    strict = dataclasses.replace(settings(photographs), max_bad_fraction=0.0)
    with batches(strict) as own, pytest.raises(UserError, match="photographs") as error:
        for _ in range(10):
            next(own)
    assert "max_bad_fraction" in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_disappears_ends_the_run_with_its_name(photographs, workers):
    quick = settings(photographs, workers=workers, cache_bytes=0)
    with batches(quick) as own:
        next(own)
        shutil.rmtree(photographs)
        with pytest.raises(UserError, match="photographs"):
            for _ in range(200):
                next(own)


def test_small_pictures_are_enlarged_and_counted(tmp_path):
    for number in range(4):
        Image.fromarray(picture(number, 20, 24)).save(tmp_path / f"{number}.png")
    with batches(settings(tmp_path)) as own:
        assert next(own)["hr"].shape == (8, 32, 32, 3)
        assert own.log.enlarged == 8


def test_the_cache_changes_nothing(photographs):
    cached, uncached = (
        global_batches(settings(photographs, cache_bytes=size), 6) for size in (1 << 20, 0)
    )
    assert_equal(cached, uncached)


def test_a_source_that_is_far_larger_than_the_cache_is_not_kept_in_it(photographs, monkeypatch):
    kept = []
    monkeypatch.setattr(
        "vosr_jax.data.samples.PictureCache.put", lambda self, *pair: kept.append(pair)
    )
    picture_bytes = 4 * 56 * 72
    for cache_bytes, keeps in (
        (20 * picture_bytes // 8 - 1, False),
        (20 * picture_bytes // 8, True),
    ):
        kept.clear()
        global_batches(settings(photographs, cache_bytes=cache_bytes), 1)
        assert bool(kept) == keeps


@pytest.mark.slow
def test_a_million_records_start_fast_and_leave_a_workers_memory_flat(tmp_path):
    listed = write_list(tmp_path, 1_000_000)
    cpu = time.process_time()
    million = settings(listed, workers=1, crop_size=32)
    with batches(million) as own:
        next(own)
        # Of the processor's time, which other programs cannot lengthen.
        assert time.process_time() - cpu < 5
        (worker,) = multiprocessing.active_children()
        for _ in range(100):
            next(own)
        early = memory(worker.pid)
        for _ in range(400):
            next(own)
        assert memory(worker.pid) < early + 8


def test_settings_that_cannot_work_are_refused(photographs):
    with pytest.raises(UserError, match="batch_size"):
        batches(settings(photographs, batch_size=0))
    for rows in ([], [0, 0], [8], [-1]):
        with pytest.raises(ValueError, match="no rows of a batch of 8"):
            batches(settings(photographs), rows=rows)
    with pytest.raises(UserError, match="crop_size"):
        batches(dataclasses.replace(settings(photographs), crop_size=30))
    with pytest.raises(UserError, match="seed"):
        batches(dataclasses.replace(settings(photographs), seed=-1))


def test_closed_batches_say_so(photographs):
    own = batches(settings(photographs))
    own.close()
    own.close()
    with pytest.raises(ValueError, match="closed"):
        next(own)


def test_the_package_imports_no_jax_and_no_grain():
    program = (
        "import sys, vosr_jax.data.pipeline, vosr_jax.data.validation;"
        "sys.exit(any(name in sys.modules for name in ('jax', 'grain', 'tensorflow', 'skimage')))"
    )
    assert subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT).returncode == 0


KILLED_PROGRAM = """
import multiprocessing, sys, time
from vosr_jax.data.pipeline import PipelineSettings, batches

if __name__ == "__main__":
    own = batches(PipelineSettings(sources=sys.argv[1], batch_size=2, crop_size=32, workers=1))
    next(own)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def runs(pid):
    """Whether a process lives and is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_do_not_outlive_a_killed_program(photographs, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLED_PROGRAM)
    command = [sys.executable, str(program), str(photographs)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as running:
        workers = running.stdout.readline().split()
        running.kill()
    assert workers
    end = time.monotonic() + 10
    while any(map(runs, workers)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(runs, workers))


def test_rows_may_be_one_or_any_others_in_any_order(photographs):
    pipeline = PipelineSettings(sources=str(photographs), seed=5, batch_size=4, crop_size=32)
    with batches(pipeline, samples_seen=4) as whole:
        expected = [next(whole) for _ in range(2)]
    for rows in ([0], [3], [3, 0], [1, 3, 2]):
        with batches(pipeline, samples_seen=4, rows=rows) as own:
            for batch in expected:
                found = next(own)
                np.testing.assert_array_equal(found["hr"], batch["hr"][rows])
                np.testing.assert_array_equal(found["index"], batch["index"][rows])
