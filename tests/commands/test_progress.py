"""How far a run is, on a terminal and in a log."""

import sys

from vosr_jax.commands.output import Progress, duration


def test_without_a_terminal_each_picture_is_a_line_with_the_time_left(capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress({"a.png": 1.0, "b.png": 1.0, "c.png": 2.0})
    progress.update("a.png", 0.5)
    progress.end("a.png", "out/a.png (8x8, 1.0 s)")
    progress.end("b.png", "failed: b.png is empty", failed=True)
    progress.end("c.png", "out/c.png (8x8, 2.0 s)")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "[1/3] out/a.png (8x8, 1.0 s), 0:30 left",
        "[3/3] out/c.png (8x8, 2.0 s)",
    ]
    assert shown.err == "failed: b.png is empty\n"


def test_one_picture_needs_no_count(capsys):
    progress = Progress({"a.png": 1.0})
    progress.end("a.png", "out/a.png (8x8, 1.0 s)")
    assert capsys.readouterr().out == "out/a.png (8x8, 1.0 s)\n"


def test_on_a_terminal_one_line_moves(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress({"a.png": 1.0, "b.png": 1.0})
    progress.update("a.png", 0.25)
    assert "[1/2] a.png 25%" in capsys.readouterr().err


def test_durations_have_hours_where_they_need_them():
    assert (duration(65), duration(3725)) == ("1:05", "1:02:05")
