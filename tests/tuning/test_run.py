"""The whole command on a tiny model and a tiny folder."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.training.tiny import write_tiny_base
from tests.tuning.test_photographs import write
from vosr_jax.cli import main
from vosr_jax.parameters.tensors import read_tensors
from vosr_jax.restoration.upscaler import Upscaler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base and twelve photographs."""
    folder = tmp_path_factory.mktemp("train-on")
    write_tiny_base(folder / "base")
    write(folder / "photos", 12, side=256)
    return folder


def call(place, out: str, *more: str) -> int:
    given = ["train-on", str(place / "photos"), "-o", str(place / out), "-m", str(place / "base")]
    return main([*given, *more])


def test_from_folder_to_before_and_after_and_on_from_there(place, capsys):
    out = place / "mine"
    assert call(place, "mine", "--rank", "2", "--steps", "3") == 0
    said = capsys.readouterr().out
    assert "12 photographs serve" in said and "2 are held out" in said
    assert f"-m {out}/model" in said and "crops are nearer" in said
    assert {"run", "adapter", "model", "samples", "before-after.png"} <= {
        entry.name for entry in out.iterdir()
    }
    assert Image.open(out / "before-after.png").size[0] == 4 * 256
    assert len(list((out / "samples").glob("*.png"))) == 2
    assert not [entry.name for entry in out.iterdir() if entry.name.startswith(".")]
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pictures = [
        Upscaler.from_pretrained(name, adapter=adapter)(photo, output="numpy")
        for name, adapter in ((out / "model", None), (place / "base", out / "adapter"))
    ]
    np.testing.assert_array_equal(*pictures)
    before = read_tensors(out / "model/model.safetensors")

    assert call(place, "mine", "--rank", "2", "--steps", "5") == 0
    said = capsys.readouterr()
    assert "goes on with the 10 photographs" in said.out and "resumed at step 3" in said.err
    assert json.loads((out / "model/provenance.json").read_text())["step"] == 5
    after = read_tensors(out / "model/model.safetensors")
    changed = [name for name in before if np.any(before[name] != after[name])]
    assert changed and all(name.startswith("blocks.") for name in changed)

    assert call(place, "mine", "--rank", "4", "--steps", "5") == 1
    assert "holds another run (--rank 2, not 4)" in capsys.readouterr().err


def test_all_weights_may_be_trained_and_the_clock_ends_it(place, capsys):
    assert call(place, "all", "--full", "--minutes", "0.01") == 0
    out = place / "all"
    assert not (out / "adapter").exists() and (out / "model/model.safetensors").is_file()
    assert "after 1 steps" in capsys.readouterr().out
    assert call(place, "all", "--full", "--minutes", "0.01") == 0
    assert "give more --minutes to go on" in capsys.readouterr().out
