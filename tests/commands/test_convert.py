"""vosr convert: what it writes, and what it says about what it cannot."""

from pathlib import Path

import pytest

from tests.parity import goldens
from tests.training.tiny import tiny_config
from vosr_jax import cli
from vosr_jax.parameters.tensors import read_tensors
from vosr_jax.restoration.loading import load_model


def _release(name: str) -> str:
    return str(goldens.folder("pipeline") / "preset/ckpts" / name)


def test_a_release_becomes_shards_and_goes_back(tmp_path, capsys):
    export, back = tmp_path / "export", tmp_path / "back"
    arguments = ["-o", str(export), "--shard-size", "150KB"]
    assert cli.main(["convert", _release("VOSR_0.5B_ms"), *arguments]) == 0
    assert f"wrote {export} (2." in capsys.readouterr().out
    assert len(list(export.glob("model-*.safetensors"))) == 2
    assert cli.main(["convert", str(export), "-o", str(back), "--to", "official"]) == 0
    assert f"wrote {back / 'preset/ckpts/VOSR_0.5B_ms'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "model gone: there is no such name or path; known are nano"),
        (["nano", "--to", "official"], "detailer"),
        (["nano", "--shard-size", "many"], "--shard-size many is no size"),
        (["nano", "--shard-size", "0MB"], "--shard-size 0MB is no size"),
    ],
)
def test_a_call_that_cannot_work_says_why_and_writes_nothing(tmp_path, capsys, arguments, said):
    assert cli.main(["convert", *arguments, "-o", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_shipped_model_can_be_copied_and_still_loads(tmp_path, capsys):
    out = tmp_path / "mine"
    assert cli.main(["convert", "nano", "-o", str(out)]) == 0
    assert load_model(out).sampler == load_model("nano").sampler


@pytest.mark.slow
def test_a_run_becomes_an_export_in_half_precision_and_an_official_folder(tmp_path, capsys):
    from vosr_jax.training.loop import train

    parts = goldens.folder("pipeline") / "preset/ckpts"
    encoder = str(parts / "torch_cache/checkpoints/dinov2_vitb14_pretrain.pth")
    config = tiny_config(
        model={"patch_size": 2, "swiglu_multiple": 16},
        autoencoder={"kind": "sd2", "path": str(parts / "stable-diffusion-2-1-base")},
        encoder={"kind": "dinov2b", "path": encoder, "size": 56, "block": 1, "token_width": 64},
        data={"crop_size": 64},
        eval={"crop_size": 64},
    )
    run = tmp_path / "run"
    train(config, run)
    assert cli.main(["convert", str(run), "-o", str(tmp_path / "export")]) == 0
    kinds = {t.dtype.name for t in read_tensors(tmp_path / "export/model.safetensors").values()}
    assert kinds == {"float16"}
    assert load_model(tmp_path / "export").encoder is not None
    official = tmp_path / "official"
    assert cli.main(["convert", str(run), "-o", str(official), "--to", "official"]) == 0
    said = capsys.readouterr().out
    assert "--cfg_scale -0.5 --infer_steps 2" in said
    assert (official / "preset/ckpts/sd21_lwdecoder.pth").is_file()
    assert load_model(official / "preset/ckpts/run").token_block == 1
    assert Path(official / "manifest.json").is_file()
