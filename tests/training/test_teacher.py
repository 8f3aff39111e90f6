"""The frozen teacher: what is refused, what a student begins from, what a checkpoint knows."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.config import Config
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.errors import UserError
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.parameters.blueprint import Blueprint, flatten
from vosr_jax.parameters.lazy import sha256_of
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.loop import train
from vosr_jax.training.setup import start_run
from vosr_jax.training.sharding import cast_frozen
from vosr_jax.training.teacher import open_teacher
from vosr_jax.weights.convert import write_export
from vosr_jax.weights.export import load_export
from vosr_jax.weights.package import read_package
from vosr_jax.weights.saved_run import load_ema, teacher_of

STUDENT = {"model": {"r_embedding": True}, "objective": {"name": "rcgm"}}


def student_config(teacher: Path | str | None, **sections: dict) -> Config:
    """The tiny student of a teacher."""
    merged = {k: STUDENT.get(k, {}) | sections.get(k, {}) for k in STUDENT.keys() | sections.keys()}
    name = None if teacher is None else str(teacher)
    return dataclasses.replace(tiny_config(**merged), teacher=name)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """The export of a short multi-step run."""
    folder = tmp_path_factory.mktemp("teacher")
    train(tiny_config(optimizer={"learning_rate": 0.02}), folder / "run")
    return write_export(read_package(folder / "run"), folder / "export")


@pytest.fixture(scope="module")
def student(tmp_path_factory, teacher: Path) -> Path:
    """The workdir of a short distillation."""
    folder = tmp_path_factory.mktemp("student") / "run"
    train(student_config(teacher, train={"checkpoint_every": 1}), folder)
    return folder


def begun(config: Config, tmp_path: Path):
    """A run at its first step."""
    checkpoints = Checkpoints(tmp_path / "run")
    try:
        return start_run(config, checkpoints)
    finally:
        checkpoints.close()


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"model": {"width": 48}}, "model.width is 32, here 48"),
        ({"model": {"depth": 3}}, "model.depth is 2, here 3"),
        ({"autoencoder": {"downscale": 4}}, "autoencoder.downscale is 2, here 4"),
        ({"encoder": {"kind": "dinov2b", "path": "none"}}, "encoder.kind is 'none', here 'dino"),
        ({"objective": {"endpoint": "residual"}}, "objective.endpoint is 'hr', here 'residual'"),
        ({"guidance": {"kind": "classifier_free"}}, "guidance.kind is 'restoration', here 'class"),
    ],
    ids=["width", "depth", "autoencoder", "encoder", "endpoint", "guidance"],
)
def test_a_teacher_that_does_not_match_is_refused_before_anything_is_made(
    teacher: Path, tmp_path: Path, monkeypatch, sections: dict, told: str
):
    def never(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr("vosr_jax.training.setup.open_frozen", never)
    monkeypatch.setattr("vosr_jax.parameters.lazy.HostArray.__getitem__", never)
    with pytest.raises(UserError, match=f"teacher=.* does not match this student.*{told}") as error:
        train(student_config(teacher, **sections), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_student_is_no_teacher(student: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is itself a one-step student .model.r_embedding=True"):
        open_teacher(student_config(student))


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_path_without_a_model_is_named(tmp_path: Path, kind: str):
    folder = tmp_path / "nothing"
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(UserError, match=f"teacher={folder}"):
        open_teacher(student_config(folder))


def test_an_official_teacher_is_compared_by_its_args(tmp_path: Path):
    args = dict(
        ae_type="sd2", enc_type="dinov2b", resolution=512, patch_size=2, dim=1024, depth=28,
        num_heads=16, mlp_ratio=4, enc_dim=768, encdim_ratio=3, use_qknorm=True, use_swiglu=True,
        use_rope=True, use_rmsnorm=True, layer_dinov2b_list=[8],
        weak_cond_strength_aelq_list=[0.05, 0.25],
    )  # fmt: skip
    (tmp_path / "args.json").write_text(json.dumps(args))
    sections = {"autoencoder": {"kind": "sd2", "path": "x"}, "encoder": {"kind": "dinov2b"}}
    sections["encoder"]["path"] = "x"
    sections["encoder"]["block"] = 8
    sizes = {"patch_size": 2, "width": 1024, "depth": 28, "heads": 16}
    config = student_config(tmp_path, model=sizes, **sections)
    # Everything fits, and only the weights are missing.
    with pytest.raises(UserError, match="no weights"):
        open_teacher(config)
    config = student_config(tmp_path, model=sizes | {"depth": 36}, **sections)
    with pytest.raises(UserError, match="model.depth is 28, here 36"):
        open_teacher(config)
    (tmp_path / "args.json").write_text(json.dumps(args | {"auxiliary_time_cond": True}))
    with pytest.raises(UserError, match="one-step student .auxiliary_time_cond"):
        open_teacher(config)


def test_the_student_begins_as_its_teacher(teacher: Path, tmp_path: Path):
    config = student_config(teacher)
    run = begun(config, tmp_path)
    _, model = load_export(teacher)
    taught = flatten(model)
    for name, value in taught.items():
        np.testing.assert_array_equal(run.state.parameters[name], value)
        np.testing.assert_array_equal(run.state.ema[name], value)
    new = run.state.parameters.keys() - taught.keys()
    assert new and all(name.startswith("r_embedding.") for name in new)
    for name in new:
        value = np.asarray(run.state.parameters[name])
        if name.endswith("bias"):
            assert not value.any()
        else:
            assert value.std() == pytest.approx(0.02, rel=0.1)
            assert abs(value.mean()) < 0.002
    form = config.parameterization()
    ours = CachedDenoiser(run.train_step.network.merge(run.state.parameters), form)
    theirs = CachedDenoiser(model, form)
    z, t = jax.random.normal(jax.random.key(0), (3, 16, 16, 12)), jnp.array([0.2, 0.6, 1.0])
    np.testing.assert_allclose(ours(z, z, t, None, t), theirs(z, z, t), atol=1e-6)
    assert np.abs(ours(z, z, t, None, 0 * t) - theirs(z, z, t)).max() > 1e-5


def test_nothing_of_the_teacher_is_in_the_state_but_its_identity(student: Path, teacher: Path):
    import orbax.checkpoint as ocp

    state = ocp.PyTreeCheckpointer().restore(student / "checkpoints" / "3" / "state")
    taught = flatten(load_export(teacher)[1])
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert not any("teacher" in name for name in names)
    # Parameters, EMA and AdamW's two slots, each of the student's size; nothing more.
    count = sum(np.size(x) for x in jax.tree.leaves(state))
    _, _, ema = load_ema(student)
    assert abs(count - 4 * sum(x.size for x in ema.values())) < 10
    identity = teacher_of(student)
    assert identity == {"path": str(teacher), "sha256": sha256_of(taught)}
    again = flatten(load_export(teacher)[1])
    for name, value in taught.items():
        np.testing.assert_array_equal(again[name], value)
        assert np.abs(ema[name] - value).max() > 0 or not value.any(), name


def test_a_student_resumed_with_another_teacher_is_refused(
    student: Path, teacher: Path, tmp_path: Path
):
    folder, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(student, folder)
    train(tiny_config(), tmp_path / "second")
    write_export(read_package(tmp_path / "second"), other)
    longer = {"train": {"checkpoint_every": 1, "total_steps": 4}}
    config = student_config(other, **longer)
    with pytest.raises(UserError, match="begun with another config .teacher: "):
        train(config, folder)
    with pytest.raises(UserError, match="was distilled with teacher .*key teacher gives"):
        train(config, folder, allow_config_changes=True)
    with pytest.raises(UserError, match="key teacher gives no teacher"):
        train(student_config(None, **longer), folder, allow_config_changes=True)
    # The same weights elsewhere are the same teacher.
    moved = tmp_path / "moved"
    shutil.copytree(teacher, moved)
    run = train(student_config(moved, **longer), folder, allow_config_changes=True)
    assert run.step == 4


def test_an_export_of_a_student_names_its_teacher_by_hash_alone(
    student: Path, teacher: Path, tmp_path: Path
):
    folder = write_export(read_package(student), tmp_path / "export")
    assert json.loads((folder / "config.json").read_text())["teacher"] is None
    told = (folder / "provenance.json").read_text()
    assert json.loads(told)["teacher_sha256"] == sha256_of(flatten(load_export(teacher)[1]))
    assert str(teacher) not in told
    _, model = load_export(folder)
    assert model.settings.r_embedding


@pytest.mark.parametrize("name", ["rcgm", "shortcut", "mean_flow"])
def test_every_objective_trains_with_and_without_a_teacher(name: str, teacher: Path, tmp_path):
    for given in (teacher, None):
        config = student_config(
            given, objective={"name": name, "one_step_share": 0.3}, guidance={"drop_rate": 0.3}
        )
        run = begun(config, tmp_path / str(given is None))
        step = jax.jit(run.train_step.step)
        state, metrics = step(run.state, run.weights, tiny_batch(0))
        assert np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0
        assert metrics["loss_rows"].shape == (4,)
        moved = [n for n, v in state.parameters.items() if (v != run.state.parameters[n]).any()]
        assert any(n.startswith("r_embedding") for n in moved)
    assert "teacher" not in run.weights


def test_half_precision_storage_changes_no_bit_of_the_teachers_output():
    settings = LightningDiTSettings(
        latent_channels=3, latent_size=4, width=32, depth=2, heads=2, token_width=6
    )
    detailed = dataclasses.replace(settings, token_width=None, detail_width=8)
    for own in (settings, detailed):
        blueprint = Blueprint(
            lambda own=own: LightningDiT(own, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
        )
        rng = np.random.default_rng(0)
        whole = {
            k: np.asarray(v) + rng.normal(0, 0.1, v.shape).astype(np.float32)
            for k, v in blueprint.initialize().items()
        }
        half = cast_frozen(whole, jnp.dtype(jnp.bfloat16))
        halved = sum(v.nbytes for v in half.values()) / sum(v.nbytes for v in whole.values())
        assert halved < 0.9
        z, t = rng.normal(size=(2, 4, 4, 3)).astype(np.float32), np.array([0.3, 0.9], np.float32)
        tokens = rng.normal(size=(2, 5, 6)).astype(np.float32) if own.token_width else None
        ours = blueprint.merge(half)(z, z, t, tokens)
        np.testing.assert_array_equal(ours, blueprint.merge(whole)(z, z, t, tokens))
