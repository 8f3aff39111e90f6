"""Training of adapters: the base stays, and the run's state and files hold the adapters alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.tiny import tiny_batch, tiny_config, write_tiny_base
from vosr_jax import config as c
from vosr_jax.cli import main
from vosr_jax.errors import UserError
from vosr_jax.files import write_json
from vosr_jax.models.lora import is_adapter, merged_kernel
from vosr_jax.parameters.lazy import sha256_of
from vosr_jax.parameters.tensors import read_tensors
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.loop import train
from vosr_jax.training.setup import start_run
from vosr_jax.weights.adapter import adapter_of_run, read_adapter
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import resolve
from vosr_jax.weights.saved_run import Progress, SavedRun, load_run

RANK, ALPHA = 2, 4.0


def adapting(base: Path | None, **sections) -> c.Config:
    train = {"init_from": None if base is None else str(base)} | sections.pop("train", {})
    model = {"lora_rank": RANK, "lora_alpha": ALPHA} | sections.pop("model", {})
    return tiny_config(model=model, train=train, **sections)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, dict]:
    """(base's folder, workdir, base's values) of a run whose adapters have moved."""
    place = tmp_path_factory.mktemp("lora")
    values = write_tiny_base(place / "base")
    config = adapting(place / "base")
    checkpoints = Checkpoints(place / "run", config=config.to_dict())
    run = start_run(config, checkpoints)
    moved = jax.tree.map(lambda value: value + 0.05, run.state.ema)
    state = dataclasses.replace(run.state, step=run.state.step + 3, ema=moved)
    write_json(place / "run" / "config.json", config.to_dict())
    checkpoints.save(state, samples_seen=12, base=run.base)
    checkpoints.close()
    return place / "base", place / "run", values


def test_the_state_holds_adapters_alone(tmp_path):
    write_tiny_base(tmp_path / "base")
    run = start_run(adapting(tmp_path / "base"), Checkpoints(tmp_path / "run"))
    names = set(run.state.parameters)
    assert names and all(map(is_adapter, names)) and run.state.ema.keys() == names
    slots = [leaf.size for leaf in jax.tree.leaves(run.state.optimizer) if leaf.ndim]
    assert sum(slots) == 2 * sum(value.size for value in run.state.parameters.values())
    assert not any(map(is_adapter, run.weights["base"]))


@pytest.mark.slow
def test_the_first_loss_is_the_bases_to_the_bit(tmp_path):
    write_tiny_base(tmp_path / "base")
    whole = tiny_config(train={"init_from": str(tmp_path / "base")})
    losses = []
    for number, config in enumerate((adapting(tmp_path / "base"), whole)):
        run = start_run(config, Checkpoints(tmp_path / str(number)))
        loss = jax.jit(run.train_step.loss)(run.state.parameters, run.weights, tiny_batch(0), 0)[0]
        losses.append(float(loss))
    assert losses[0] == losses[1] > 0


def test_a_checkpoint_holds_the_adapters_and_names_their_base(trained):
    base, workdir, values = trained
    run = load_run(workdir)
    assert run.step == 3 and all(map(is_adapter, run.ema))
    assert any(np.any(v != 0) for k, v in run.ema.items() if k.endswith("up"))
    assert run.progress.base == {"path": str(base), "name": "base", "sha256": sha256_of(values)}


def test_the_merged_export_is_base_plus_adapter(trained, tmp_path, capsys):
    base, workdir, values = trained
    assert main(["convert", str(workdir), "-o", str(tmp_path / "merged")]) == 0
    assert main(["convert", str(workdir), "-o", str(tmp_path / "small"), "--adapter"]) == 0
    assert "an adapter of base" in capsys.readouterr().out
    adapter, merged = (
        read_adapter(tmp_path / "small"),
        read_tensors(tmp_path / "merged/model.safetensors"),
    )
    assert (adapter.rank, adapter.alpha) == (RANK, ALPHA) and merged.keys() == values.keys()
    changed = {name for name in values if np.any(merged[name] != values[name])}
    assert changed == {
        f"{name[: -len('.lora.up')]}.kernel" for name in adapter.parameters if name.endswith("up")
    }
    for name in changed:
        down, up = (adapter.parameters[f"{name[:-7]}.lora.{part}"] for part in ("down", "up"))
        wanted = merged_kernel(values[name], down, up, ALPHA / RANK)
        np.testing.assert_allclose(merged[name], wanted, atol=1e-6)
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert config["model"]["lora_rank"] == 0
    facts = json.loads((tmp_path / "small/adapter.json").read_text())
    assert facts["base"] == {"name": "base", "sha256": sha256_of(values)} and facts["vosr_jax"]
    # A workdir is opened merged too.
    opened = open_denoiser(resolve(workdir))
    assert opened.config.model.lora_rank == 0
    for name, value in opened.network.parameters.items():
        np.testing.assert_array_equal(np.asarray(value), merged[name])
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pictures = [
        Upscaler.from_pretrained(name, adapter=own)(photo, output="numpy")
        for name, own in ((base, tmp_path / "small"), (tmp_path / "merged", None))
    ]
    np.testing.assert_array_equal(*pictures)


def test_an_adapter_of_another_base_is_refused_and_both_are_named(trained, tmp_path, capsys):
    base, workdir, _ = trained
    main(["convert", str(workdir), "-o", str(tmp_path / "small"), "--adapter"])
    write_tiny_base(tmp_path / "stranger", seed=1)
    with pytest.raises(UserError, match="small belongs to base .* and stranger is another model"):
        Upscaler.from_pretrained(tmp_path / "stranger", adapter=tmp_path / "small")
    with pytest.raises(UserError, match="is no adapter: it needs adapter.json"):
        Upscaler.from_pretrained(base, adapter=tmp_path)
    call = ["upscale", "assets/demo/coffee.png", "-o", str(tmp_path / "out"), "-m", "nano-onestep"]
    assert main([*call, "--adapter", str(tmp_path / "small")]) == 1
    assert "belongs to base" in capsys.readouterr().err


def test_a_run_of_all_weights_has_no_adapter_to_write(tmp_path, capsys):
    run = SavedRun(tiny_config().to_dict(), 1, Progress(), {"patch_embed.kernel": np.zeros(1)})
    with pytest.raises(UserError, match="runs/mine trained all of its network and has no adapters"):
        adapter_of_run(run, "runs/mine")
    assert main(["convert", "nano", "-o", str(tmp_path / "small"), "--adapter"]) == 1
    assert "takes the workdir" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_without_a_base_or_with_one_of_other_sizes_nothing_begins(tmp_path):
    with pytest.raises(UserError, match="model.lora_rank=2 trains adapters of a model; name it"):
        start_run(adapting(None), Checkpoints(tmp_path / "run"))
    write_tiny_base(tmp_path / "base")
    wider = adapting(tmp_path / "base", model={"width": 64})
    with pytest.raises(UserError, match="train.init_from=.* take the model's own config.model"):
        start_run(wider, Checkpoints(tmp_path / "run"))


def test_a_run_does_not_go_on_around_another_base(trained, tmp_path):
    base, workdir, _ = trained
    shutil.copytree(workdir, tmp_path / "run")
    shutil.copytree(base, tmp_path / "base")
    write_tiny_base(tmp_path / "base", seed=5)
    longer = adapting(tmp_path / "base", train={"total_steps": 4})
    with pytest.raises(UserError, match="holds adapters of .* has other weights"):
        train(longer, tmp_path / "run", allow_config_changes=True)
