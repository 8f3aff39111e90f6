"""What a start says, and the log file that keeps it."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.training.processes import finish, start
from vosr_jax.console import NAME, keep_log, say
from vosr_jax.data.sources import parse_sources
from vosr_jax.data.sources.source import megapixels
from vosr_jax.errors import UserError
from vosr_jax.training.sharding import make_mesh
from vosr_jax.training.telemetry import about_devices, about_source

_TIMED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d  (.*)")
_SAID = re.compile(
    r"begun at step 0|resumed at step \d+|devices: |[\d,]+ parameters, |source |step \d+/\d+ "
)


def _said(folder: Path) -> list[str]:
    return [_TIMED.fullmatch(line)[1] for line in (folder / NAME).read_text().splitlines()]  # type: ignore


def test_what_is_said_lies_in_the_log_with_times_and_the_last_word_too(tmp_path: Path, capsys):
    say("before")
    with keep_log(tmp_path):
        say("one")
    with pytest.raises(UserError), keep_log(tmp_path):
        say("two")
        raise UserError("the disk is gone")
    say("after")
    assert _said(tmp_path) == ["one", "two", "error: the disk is gone"]
    assert capsys.readouterr().err.split("\n")[:4] == ["before", "one", "two", "after"]


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path):
    (tmp_path / NAME).mkdir()
    with keep_log(tmp_path):
        say("on")
    assert (tmp_path / NAME).is_dir() and not list((tmp_path / NAME).iterdir())


def test_a_source_is_said_with_its_pictures_and_their_size(tmp_path: Path):
    for number in range(40):
        Image.fromarray(np.zeros((500, 1000 + 1000 * (number % 2), 3), np.uint8)).save(
            tmp_path / f"{number:02}.png"
        )
    (source,) = parse_sources(str(tmp_path))
    assert megapixels(source, 20) == (pytest.approx(0.5), 20)
    assert "40 pictures, about " in about_source(source)
    (tmp_path / "00.png").write_bytes(b"none")
    assert megapixels(source, 20) == (pytest.approx(0.5), 19)
    for file in tmp_path.iterdir():
        file.write_bytes(b"none")
    assert megapixels(source) is None and "none that were" in about_source(source)


def test_devices_are_counted_by_kind_with_their_mesh():
    told = about_devices(make_mesh(1, 1, 1, jax.devices()[:1]))
    assert told == "devices: 1 x cpu; mesh data 1 x fsdp 1 x tensor 1"


@pytest.mark.slow
def test_a_start_says_its_few_lines_and_no_library_speaks(tmp_path: Path):
    for steps in (1, 2):
        code, output = finish(
            start(
                tmp_path / "run",
                tmp_path / "cache",
                "--config.optimizer.decay_steps=2",
                f"--config.train.total_steps={steps}",
            )
        )
        assert code == 0, output
        lines = output.splitlines()
        assert [line for line in lines if not _SAID.match(line)] == []
        assert len(lines) == 5
    assert len(_said(tmp_path / "run")) == 10
    table = (tmp_path / "run/parameters.txt").read_text()
    assert "blocks.attn.qkv.kernel" in table and "parameters, " in table
