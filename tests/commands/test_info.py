"""vosr info: what a model is, from its files alone."""

import shutil

import pytest

from tests.parity import goldens
from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.restoration import memory as footprint
from vosr_jax.weights.convert import write_export
from vosr_jax.weights.package import read_package


def _release(name: str):
    return goldens.folder("pipeline") / "preset/ckpts" / name


def test_a_released_checkpoint_is_described_part_by_part(capsys):
    assert cli.main(["info", str(_release("VOSR_0.5B_ms"))]) == 0
    text = capsys.readouterr().out
    for said in (
        "VOSR_0.5B_ms, multi-step",
        "SDAutoencoder",
        "DINOv2",
        "tokens after block 1",
        "scale -0.5, weak strength 0.15",
        "25, linear",
        "autoencoder: CreativeML Open RAIL++-M",
        "light decoder: Apache-2.0",
    ):
        assert said in text, said


def test_the_shipped_model_and_one_trained_here_have_the_licences_stated_for_them(capsys, tmp_path):
    assert cli.main(["info", "nano", "--size", "32x16"]) == 0
    said = capsys.readouterr().out
    assert "denoiser: Apache-2.0 (LICENSE of this package)" in said
    assert "for a result of 32x16" in said and "as XLA counts them" in said
    folder = write_export(read_package("vosr_jax/pretrained/nano"), tmp_path / "mine")
    (folder / "manifest.json").unlink()
    assert cli.main(["info", str(folder)]) == 0
    assert "denoiser: not stated" in capsys.readouterr().out


def test_files_are_verified_and_a_changed_one_is_named(tmp_path, capsys):
    folder = write_export(read_package(_release("VOSR_1.4B_os")), tmp_path / "export")
    assert cli.main(["info", str(folder), "--verify"]) == 0
    assert "files have the sha256 of manifest.json" in capsys.readouterr().out
    shutil.copy(folder / "encoder/model.safetensors", folder / "model.safetensors")
    assert cli.main(["info", str(folder), "--verify"]) == 1
    assert "model.safetensors is not the file that was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nano", "--size", "big"], "--size big is no picture's size"),
        (["nano", "--size", "0x5"], "--size 0x5 is no picture's size"),
        (["nano", "--size", "9999999x5"], "no picture's size"),
        (["nano", "--tile-size", "-1"], "--tile-size -1 is negative"),
        (["nano", "--verify"], "has no manifest.json"),
    ],
)
def test_a_call_that_cannot_work_says_why(capsys, arguments, said):
    assert cli.main(["info", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_memory_grows_with_the_picture_but_not_the_denoisers_with_tiles():
    model = tiny_model()
    small, large = (footprint.estimate(model, (side, side), 32) for side in (32, 128))
    assert small.parameters == large.parameters == 4 * footprint.parameter_count(model.denoiser)
    assert small.programs["denoise"] == large.programs["denoise"]
    assert small.programs["decode"] < large.programs["decode"]
    assert large.peak == large.parameters + max(large.programs.values())
