"""The commands and programs that README and docs/upscaling.md show are run as they stand there."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.restoration.upscaler import Upscaler

_ROOT = Path(__file__).parents[1]
_PAGES = ("README.md", "docs/upscaling.md")
_NEED_MORE = ("convert", "plan", "data", "sweep", "compile", "push", "card", "serve", "train-on")
_LEFT_OUT = tuple(f"vosr {command}" for command in _NEED_MORE)


def _blocks(page: str, language: str) -> list[str]:
    text = (_ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(page: str) -> list[str]:
    lines = [line for block in _blocks(page, "") for line in block.splitlines()]
    lines += re.findall(r"`(vosr upscale [^`]* -o [^`]*)`", (_ROOT / page).read_text())
    return [line for line in lines if line.startswith("vosr ") and not line.startswith(_LEFT_OUT)]


def _programs(page: str) -> list[str]:
    return [block for block in _blocks(page, "python") if "Upscaler" in block]


@pytest.fixture(scope="module")
def models() -> dict[str, Upscaler]:
    """By name; all others are as guided as the nano."""
    one_step = tiny_model(sampler=SamplerSettings(steps=1, r_input=True))
    return {"nano-onestep": Upscaler(one_step), "nano": Upscaler(tiny_model())}


@pytest.fixture
def reader(tmp_path, monkeypatch, models):
    """Somebody who reads the page in a folder with a few photos of their own."""

    def load(name_or_path="nano-onestep", *_, **__):
        one_step = "onestep" in str(name_or_path)
        return models["nano-onestep" if one_step else "nano"]

    monkeypatch.setattr(Upscaler, "from_pretrained", load)
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "holiday/a.jpg", "holiday/deep/a.jpg", "holiday/deep/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(name)


_COMMANDS = [(page, command) for page in _PAGES for command in _commands(page)]


@pytest.mark.parametrize("page, command", _COMMANDS)
def test_a_command_of_the_docs_works(reader, capsys, page, command):
    words = shlex.split(command, comments=True)[1:]
    assert cli.main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", _PAGES)
def test_the_first_commands_of_a_page_work_one_after_another(reader, capsys, page):
    """They go into folders that do not mix settings."""
    block = next(block for block in _blocks(page, "") if block.count("vosr upscale") > 2)
    for line in block.splitlines():
        if line.startswith("vosr"):
            words = shlex.split(line, comments=True)
            assert cli.main(words[1:]) == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page, program", [(page, p) for page in _PAGES for p in _programs(page)])
def test_a_program_of_the_docs_works(reader, page, program):
    names: dict = {}
    exec(compile(program, page, "exec"), names)
    assert names["picture"].size == (32, 32)


def test_the_demo_is_told_in_twenty_five_lines():
    makefile = (_ROOT / "Makefile").read_text()
    recipe = re.search(r"^demo:.*?\n\n", makefile, re.MULTILINE | re.DOTALL)[0]
    commands = recipe.splitlines()[1:-1]
    assert all(line.startswith("\t@") for line in commands), "make would print its own commands"
    # Steps 4, 8, ... 24, the first of each start, and what vosr upscale says of two photographs.
    said = sum("echo" in line for line in commands) + 24 // 4 + 2 + 4
    assert said <= 25
    ran = subprocess.run(["make", "-n", "demo"], cwd=_ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
