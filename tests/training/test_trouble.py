"""One process's trouble, as the others are told of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.data.bad_records import BadRecordLog, Report
from vosr_jax.data.samples import BadRecord
from vosr_jax.diffusion.noise import index_columns
from vosr_jax.errors import UserError
from vosr_jax.training import data_failures
from vosr_jax.training.build import mesh_of
from vosr_jax.training.data_failures import (
    ENLARGED,
    FAILED,
    FIRST_SOURCE,
    NAMED,
    SAMPLES,
    Board,
    Feed,
    Judge,
    notes_length,
    notes_of,
)
from vosr_jax.training.guard import UpdateGuard
from vosr_jax.training.processes import SharedError, errors_of_one
from vosr_jax.training.setup import load_train_step
from vosr_jax.training.state import new_state

SIDE, ROWS = 8, 3


def bad(number: int, source: str = "b") -> BadRecord:
    return BadRecord(source, f"{source}/{number}.png", "cut short")


class Data:
    """Batches from a list; an exception in it is raised."""

    def __init__(self, reports: list, log: BadRecordLog | None = None):
        names = [dataclasses.make_dataclass("Named", ["name"])(name) for name in ("a", "b")]
        self.sources = tuple(names)
        self.log = log or BadRecordLog(None, 0.5)
        self._reports = iter(reports)

    def take(self):
        report = next(self._reports)
        if isinstance(report, Exception):
            raise report
        pictures = np.ones((ROWS, SIDE, SIDE, 3), np.uint8)
        index = np.arange(ROWS)
        return {"hr": pictures, "lq": pictures, "index": index, "replaced": index > 5}, report


class Store:
    """As JAX's key-value store, for threads of one process."""

    def __init__(self):
        self.content: dict[str, str] = {}

    def key_value_set(self, key: str, value: str) -> None:
        if key in self.content:
            raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
        self.content[key] = value

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        return self.content[key]

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.content.items() if key.startswith(folder)]

    def key_value_delete(self, key: str) -> None:
        del self.content[key]


def boards(monkeypatch, count: int) -> list:
    """(number, board) of the processes of a job; `as_process` makes the caller one of them."""
    shared = Store()
    monkeypatch.setattr(data_failures, "store", lambda: shared)
    return [Board() for _ in range(count)]


def as_process(monkeypatch, number: int) -> None:
    monkeypatch.setattr("jax.process_index", lambda: number)


def test_a_process_that_fails_leaves_the_whole_state_as_it_was():
    config = tiny_config()
    train_step, weights = load_train_step(config, mesh_of(config, jax.devices()[:1]))
    state = new_state(train_step.network.initialize(), train_step.optimizer)
    step = jax.jit(train_step.step)
    notes = np.zeros((4, FIRST_SOURCE + 1), np.int32)
    notes[1, SAMPLES] = notes[3, SAMPLES] = 2
    after, metrics = step(state, weights, tiny_batch(0) | {"notes": notes})
    assert int(after.step) == 1 and metrics["notes"].tolist() == notes.sum(0).tolist()
    failed = notes.copy()
    failed[3, FAILED] = 1
    kept, metrics = step(after, weights, tiny_batch(1) | {"notes": failed})
    assert int(metrics["notes"][FAILED]) == 1
    jax.tree.map(np.testing.assert_array_equal, kept, after)


def test_after_a_failure_come_empty_batches_of_the_same_shapes_with_a_flag():
    board = Board()
    feed = Feed(Data([Report(ROWS), KeyError("a bug")]), board, ROWS, SIDE)
    good, *empty = (next(feed) for _ in range(4))
    assert not good["notes"][FAILED] and good["notes"][SAMPLES] == ROWS
    for batch in empty:
        assert batch["notes"][FAILED] == 1 and batch["notes"].sum() == 1
        for name, value in good.items():
            assert (batch[name].shape, batch[name].dtype) == (value.shape, value.dtype), name
    assert board.failure() == "the data pipeline failed with KeyError ('a bug')"


def test_a_source_that_has_gone_is_a_failure_with_its_name():
    board = Board()
    feed = Feed(Data([Report(ROWS, lost="photographs")]), board, ROWS, SIDE)
    assert next(feed)["notes"][FAILED]
    assert "no picture of photographs can be read" in board.failure()


def test_all_processes_say_what_the_first_that_failed_has_said(monkeypatch):
    own = boards(monkeypatch, 3)
    as_process(monkeypatch, 2)
    own[2].fail("the disk is gone")
    as_process(monkeypatch, 1)
    own[1].fail("the network is gone")
    told = {board.failure() for board in own}
    (sentence,) = told
    assert sentence.startswith("process 2 (") and sentence.endswith("): the disk is gone")
    for board in own:
        judge = Judge(Data([]), board)
        with pytest.raises(SharedError, match="process 2 .*the disk is gone"):
            judge(np.array([2, 0, 0, 0, 0, 0]))


def test_the_limit_of_bad_records_is_that_of_all_processes_together(monkeypatch):
    own = boards(monkeypatch, 2)
    told = []
    for number, board in enumerate(own):
        as_process(monkeypatch, number)
        judge = Judge(Data([], BadRecordLog(None, 0.01)), board)
        for _ in range(2):
            judge(np.array([0, 100, 1, 0, 1, 1]))
        with pytest.raises(SharedError) as error:
            judge(np.array([0, 100, 0, 0, 0, 1]))
        told.append(str(error.value))
    assert told[0] == told[1]
    assert told[0].startswith("5 of 300 samples could not be read")
    assert "most of them (3) lie in b" in told[0]


def test_the_first_process_lists_every_hosts_records_once(monkeypatch, tmp_path):
    own = boards(monkeypatch, 2)
    summed, listed = 0, tmp_path / "bad_records.jsonl"
    reports = (
        Report(ROWS, 1, [[bad(1)], [bad(2), bad(3, "a")]]),
        Report(ROWS, 0, [[bad(3, "a")], [bad(4)]]),
    )
    for number, report in enumerate(reports):
        as_process(monkeypatch, number)
        feed = Feed(Data([report, report]), own[number], ROWS, SIDE)
        summed = summed + next(feed)["notes"]
        assert next(feed)["notes"][NAMED] == 0, "a record is told once"
    assert summed[[SAMPLES, ENLARGED]].tolist() == [6, 1]
    assert summed[FIRST_SOURCE:][:2].tolist() == [1, 3]
    assert not summed[FIRST_SOURCE:][2:].any()
    for number in (1, 0):
        as_process(monkeypatch, number)
        Judge(Data([], BadRecordLog(listed, 0.5)), own[number])(summed)
        assert listed.exists() == (number == 0)
    found = [json.loads(line)["record"] for line in listed.read_text().splitlines()]
    assert sorted(found) == ["a/3.png", "b/1.png", "b/2.png", "b/4.png"]


def test_notes_count_a_replaced_sample_for_the_source_that_it_was_meant_for():
    notes = notes_of(Report(9, 2, [[bad(1)], [bad(2), bad(1, "a")]]), 3, ("a", "b"))
    assert notes[:6].tolist() == [0, 9, 2, 3, 0, 2]
    assert len(notes) == notes_length(2) and not notes[6:].any()


def test_lists_that_cannot_be_written_are_said_once_and_end_nothing(tmp_path, capsys, caplog):
    (tmp_path / "incidents.jsonl").mkdir()
    guard = UpdateGuard(tmp_path, limit=5)
    for step in (1, 2, 3):
        skipped = {"loss": jnp.nan, "skipped": 1.0, "loss_rows": [jnp.nan]}
        metrics = {name: jnp.asarray(value) for name, value in skipped.items()}
        guard.see(step, metrics | index_columns(jnp.zeros((1, 2), jnp.uint32)))
    guard.finish()
    assert capsys.readouterr().err.count("training goes on without it") == 1
    log = BadRecordLog(tmp_path, 0.5)
    for number in range(3):
        log.name(bad(number))
    assert caplog.text.count("cannot be written") == 1


def test_an_error_of_one_process_alone_ends_it_at_once_and_a_shared_one_does_not(
    monkeypatch, capsys
):
    ended = []
    monkeypatch.setattr("vosr_jax.training.processes.os._exit", ended.append)
    with pytest.raises(UserError), errors_of_one():
        raise UserError("alone in its job")
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(SharedError), errors_of_one():
        raise SharedError("all say so")
    assert not ended
    with pytest.raises(UserError), errors_of_one():
        raise UserError("no file here")
    assert ended == [1] and "error: no file here" in capsys.readouterr().err
