"""What a run writes about itself, and what a kill or a full disk does to that."""

import json
from pathlib import Path

import pytest

from vosr_jax.training import telemetry as module
from vosr_jax.training.telemetry import RunLog, cut_rows

VALUES = {"loss": 0.5, "pairs_per_second": 2.0, "data_wait_seconds": 0.0}


@pytest.fixture
def no_events(monkeypatch):
    """Without TensorBoard, whose import takes seconds."""

    def missing(*_):
        raise ImportError("no tensorflow")

    monkeypatch.setattr(module, "_tensorboard", missing)


def test_rows_that_a_kill_has_made_void_are_cut_and_so_is_a_half_line(tmp_path, no_events, capsys):
    file = tmp_path / "metrics.jsonl"
    with RunLog(tmp_path, 9) as log:
        log.start(0)
        for step in range(1, 6):
            log.write(step, {"loss": 1 / 3})
        log.write(3, {"eval_psnr": 20.0})
    before = file.read_text().splitlines()
    file.write_text(file.read_text() + '{"step": 6, "lo')
    with RunLog(tmp_path, 9) as log:
        log.start(3)
        log.write(4, {"loss": 2 / 3})
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3, 4]
    assert rows[0]["loss"] == 1 / 3 and rows[-1]["loss"] == 2 / 3 and "eval_psnr" in rows[3]
    assert file.read_text().splitlines()[:3] == before[:3]
    assert "3 rows after step 3 cut" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_file_with_nothing_to_cut_is_left_alone(tmp_path):
    file = tmp_path / "metrics.jsonl"
    cut_rows(file, 3)
    assert not file.exists()
    file.write_text('{"step": 3}\n')
    before = file.stat()
    cut_rows(file, 3)
    assert file.stat().st_ino == before.st_ino and file.stat().st_mtime_ns == before.st_mtime_ns


def test_the_time_left_leaves_compilation_out(tmp_path, no_events, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with RunLog(tmp_path, 110) as log:
        log.start(0)
        now[0] = 500.0  # compiled
        log.progress(1, VALUES)
        now[0] = 520.0
        log.progress(11, VALUES)
    first, second = capsys.readouterr().err.splitlines()[1:]
    assert "left" not in first and "compilation" in first
    assert second.endswith("left 0:03:18"), "99 steps of 2 seconds"


def test_what_cannot_be_written_is_said_once_and_ends_nothing(tmp_path, no_events, capsys):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device that is always full")
    (tmp_path / "metrics.jsonl").symlink_to(full)
    log = RunLog(tmp_path, 9)
    log._file = full.open("a", buffering=1)
    for step in range(1, 5):
        log.write(step, VALUES)
    log.close()
    told = capsys.readouterr().err
    assert told.count("rows of metrics.jsonl cannot be written") == 1 and "No space" in told


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module.jax, "process_index", lambda: 1)
    with RunLog(tmp_path, 9, {"seed": 1}) as log:
        log.start(0)
        log.write(1, VALUES)
        log.progress(1, VALUES)
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_scalars_and_the_config_and_its_errors_are_one_line(tmp_path, capsys):
    pytest.importorskip("clu.metric_writers")
    from clu.metric_writers import AsyncWriter
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    config = {"seed": 3, "train": {"init_from": None, "profile_steps": (1, 2)}, "name": "x"}
    with RunLog(tmp_path, 9, config) as log:
        assert isinstance(log._writer, AsyncWriter)
        log.start(0)
        log.write(1, {"loss": 0.25})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert "loss" in tags
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    found = data.session_start_info.hparams
    assert found["seed"].number_value == 3 and found["train.profile_steps.1"].number_value == 2

    capsys.readouterr()
    log = RunLog(tmp_path, 9)
    log._writer._writer._summary_writer.close()
    for step in range(1, 4):
        log.write(step, {"loss": 0.25})
    log.close()
    told = capsys.readouterr().err
    assert told.count("\n") == told.count("TensorBoard events cannot be written") == 1
