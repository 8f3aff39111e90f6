"""Plans by the real TPU compiler, on a slice that is not there."""

import dataclasses
import functools
import importlib.metadata
import json
import math
import os

import jax
import jax.numpy as jnp
import pytest

from tests.training.tiny import tiny_config
from vosr_jax import config as c
from vosr_jax.cli import main
from vosr_jax.config.from_file import config_from_file
from vosr_jax.errors import UserError
from vosr_jax.models.attention.splash import splash_attention
from vosr_jax.planning.memory import start_memory
from vosr_jax.planning.plan import SlicePlan, describe, make_plan
from vosr_jax.planning.topology import devices_of, parse_topology
from vosr_jax.training.abstract import abstract_run, analytic_flops, product_flops
from vosr_jax.training.build import mesh_of

pytest.importorskip("libtpu")

ROWS = 16


def small_config(**model) -> c.Config:
    """Two blocks wide enough for the hardware's tiles, 16 picture and 4 visual tokens."""
    return tiny_config(
        model={"width": 128, "heads": 1, "remat": "full", "swiglu_multiple": 128} | model,
        mesh={"data": 2, "fsdp": 4},
        train={"batch_size": ROWS},
    )


def taught_config() -> c.Config:
    """The same as a one-step student."""
    config = small_config()
    model = dataclasses.replace(config.model, r_embedding=True)
    objective = dataclasses.replace(config.objective, name="rcgm")
    return dataclasses.replace(config, model=model, objective=objective, teacher="x")


@functools.cache
def small_plan() -> SlicePlan:
    return make_plan(small_config(), parse_topology("v5e:2x4"), slowest=3, start=True)


# Two blocks of eight kernels, gathered forward and backward, and six outside them less those of
# one part; the compiler scatters a block's gradients together, and sums all small ones together.
# Two sums are for the log alone: the norms of parameters and update, and the loss by tenths of t.
EXPECTED = {"all-gather": 22, "reduce-scatter": 3, "all-reduce": 8}

# The base is gathered as ever, and no gradient of it is scattered; thin ones are summed together.
EXPECTED_OF_ADAPTERS = {"all-gather": 22, "all-reduce": 4}


def test_the_number_and_kind_of_collectives_is_what_fsdp_needs():
    plan = small_plan()
    assert {kind: number for kind, (number, _) in plan.collectives.items()} == EXPECTED
    sent = sum(size for _, size in plan.collectives.values())
    assert sent == pytest.approx(plan.gathered_bytes, rel=0.15)


def test_adapters_send_few_gradients_and_keep_little_beside_their_base():
    config = small_config(lora_rank=8)
    plan = make_plan(config, parse_topology("v5e:2x4"))
    assert {kind: number for kind, (number, _) in plan.collectives.items()} == EXPECTED_OF_ADAPTERS
    sent = sum(size for _, size in plan.collectives.values())
    assert sent == pytest.approx(plan.gathered_bytes, rel=0.05)
    trained, parameters = plan.trained
    assert 0 < trained < 0.2 * parameters
    text = describe(plan, parse_topology("v5e:2x4"))
    assert f"adapters: {trained:,} of {parameters:,} parameters are trained" in text
    assert "adapters:" not in describe(small_plan(), parse_topology("v5e:2x4"))
    held, whole = (
        sum(one.memory[kind] for kind in ("parameters", "ema", "optimizer"))
        for one in (plan, small_plan())
    )
    assert held < 0.2 * whole
    # In the products' type, where the trained network's own parameters are float32.
    assert plan.memory["base"] < 0.7 * small_plan().memory["parameters"]


def test_memory_is_told_by_kind_and_the_optimizer_has_two_slots():
    plan = small_plan()
    assert plan.fits and plan.memory["parameters"] == plan.memory["ema"]
    assert plan.memory["optimizer"] == pytest.approx(2 * plan.memory["parameters"], rel=1e-3)
    parts = ("parameters", "ema", "optimizer", "frozen", "batch", "activations", "program")
    assert plan.memory["total"] == pytest.approx(sum(plan.memory[k] for k in parts), rel=0.05)


def test_a_start_needs_no_more_of_a_device_than_the_state_and_what_is_frozen():
    plan = small_plan()
    state = sum(plan.memory[kind] for kind in ("parameters", "ema", "optimizer", "frozen"))
    assert state <= plan.start["device"] < 1.2 * state + (4 << 20)
    # Nothing is read: the weights are made, and this autoencoder has none.
    assert plan.start["host read"] == plan.start["host held"] == 0
    assert "the first start" in describe(plan, parse_topology("v5e:2x4"))


def test_each_host_reads_of_a_teacher_what_its_devices_hold():
    config = taught_config()
    # Four hosts of four chips; fsdp 4 lies over two of them, each with half of every part.
    for fsdp in (4, 16):
        mesh = dataclasses.replace(config.mesh, data=-1, fsdp=fsdp)
        wide = dataclasses.replace(config, mesh=mesh)
        run = abstract_run(wide, mesh_of(wide, devices_of(parse_topology("v5e:4x4"))))
        needed = start_memory(run)
        whole, least = 0, 0.0
        for leaf in (*run.weights["teacher"].values(), *run.state.parameters.values()):
            size = leaf.dtype.itemsize * math.prod(leaf.shape)
            parts = math.prod(leaf.shape) // math.prod(leaf.sharding.shard_shape(leaf.shape))
            whole, least = whole + size, least + size * min(2 if fsdp == 4 else 4, parts) / parts
        hashed = sum(4 * math.prod(s.shape) for s in run.weights["teacher"].values())
        assert needed["host read"] == least + hashed
        assert least < (0.6 if fsdp == 4 else 0.4) * whole
        # The hash takes it in pieces; here one piece is all of it.
        assert needed["host held"] == hashed


def test_the_page_says_what_is_compiled_and_what_is_modelled():
    text = describe(small_plan(), parse_topology("v5e:2x4"))
    for part in ("compiled in", "counted in the traced step", "modelled from", "22 times", "MFU"):
        assert part in text
    assert len(small_plan().slowest) == 3


def test_a_pairs_operations_do_not_depend_on_mesh_batch_or_rematerialization():
    wide = small_config()
    other = dataclasses.replace(
        small_config(remat="none"), train=dataclasses.replace(wide.train, batch_size=64)
    )
    assert analytic_flops(wide) == analytic_flops(other) > 0


def test_what_does_not_fit_is_said_so():
    config = small_config(width=4096, heads=32, depth=40)
    config = dataclasses.replace(config, mesh=c.MeshConfig(data=-1, fsdp=1))
    plan = make_plan(config, parse_topology("v5e:2x2"))
    assert not plan.fits and "does NOT fit" in describe(plan, parse_topology("v5e:2x2"))


@pytest.mark.parametrize(
    "name, chips, slices",
    [("v5p:4x4x4", 64, 1), ("v5e-256", 256, 1), ("v5p-128", 64, 1), ("2*v6e:4x4", 32, 2)],
)
def test_slices_have_names_and_shapes(name, chips, slices):
    topology = parse_topology(name)
    assert (topology.chips, topology.slices) == (chips, slices)


def test_a_chip_of_two_devices_is_planned_by_its_devices():
    topology = parse_topology("tpu7x:2x2x1")
    assert (topology.chips, topology.devices, len(devices_of(topology))) == (4, 8, 8)
    plan = make_plan(small_config(), topology)
    assert plan.fits and plan.rows == ROWS // 8
    assert plan.chip_hours == pytest.approx(plan.days * 24 * 4)
    assert "4 chips of 2 devices" in describe(plan, topology)


def test_another_version_of_the_compiler_is_named(monkeypatch):
    import vosr_jax.planning.topology as module

    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "0.0.7")
    assert "libtpu is 0.0.7" in module.other_compiler()
    asked = [r for r in importlib.metadata.requires("jax") or () if r.startswith("libtpu==")]
    right = asked[0].partition("==")[2].partition(";")[0].replace("*", "1").strip()
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: right)
    assert module.other_compiler() == ""


@pytest.mark.parametrize("name", ["v9:4x4", "v5e", "v5p:4x4", "x*v5e:4x4", ""])
def test_a_slice_that_does_not_exist_is_refused(name):
    with pytest.raises(UserError, match="--topology"):
        parse_topology(name)


def test_a_ring_closes_where_it_spans_a_whole_dimension():
    topology = parse_topology("v5p:4x4x4")
    line = [(0, 0, 0), (1, 0, 0)]
    ring = [(x, 0, 0) for x in range(4)]
    assert topology.bandwidth(line) == topology.chip.link
    assert topology.bandwidth(ring) == 2 * topology.chip.link


def test_a_batch_that_does_not_lie_evenly_is_refused_with_its_key():
    config = dataclasses.replace(small_config(), train=c.TrainConfig(batch_size=12))
    with pytest.raises(UserError, match="train.batch_size=12"):
        make_plan(config, parse_topology("v5e:2x4"))


def test_the_command_prints_a_plan_as_json(capsys):
    arguments = ["plan", "--config", "configs/nano.py", "--topology", "v5e:2x2", "--json"]
    overrides = ["--config.model.width=64", "--config.model.heads=1"]
    overrides += ["--config.model.depth=1", "--config.objective.perceptual_weight=0.0"]
    assert main([*arguments, *overrides]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["batch_size"] == 16 and plan["mesh"]["fsdp"] == 4


def test_an_unknown_key_and_a_stray_argument_are_refused(capsys):
    arguments = ["plan", "--config", "configs/nano.py", "--topology", "v5e:2x2"]
    assert main([*arguments, "--config.model.dept=1"]) == 1
    assert "model.depth" in capsys.readouterr().err
    assert main([*arguments, "--fast"]) == 1
    assert "--fast" in capsys.readouterr().err


def test_a_config_from_a_file_is_what_train_py_reads():
    config = config_from_file("configs/vosr_1_4b.py:512", ["--config.mesh.fsdp=4"])
    assert config.mesh.fsdp == 4 and config.data.crop_size == 512


def test_of_several_branches_one_runs_and_is_counted():
    x = jnp.ones((8, 8))

    def by_platform(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x, default=lambda x: x @ x @ x)

    assert product_flops(by_platform, x) == 2 * 2 * 8**3


@pytest.mark.parametrize("config", ["vosr_0_5b", "vosr_1_4b"])
def test_the_step_of_a_plan_is_that_of_a_machine_with_tpus(config: str, monkeypatch):
    changes = (
        *("batch_size=8", "frozen_chunks=1"),
        *("model.depth=1", "autoencoder.activations=bfloat16", "autoencoder.precision=bfloat16"),
    )
    names = [c if "." in c else f"train.{c}" for c in changes]
    asked = config_from_file(f"configs/{config}.py:512", [f"--config.{name}" for name in names])
    mesh = mesh_of(asked, devices_of(parse_topology("v5e:2x2")))
    here = abstract_run(asked, mesh).lower().as_text()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert abstract_run(asked, mesh).lower().as_text() == here


def test_a_plan_sets_the_flag_that_jax_sets_beside_tpus(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_other=true")
    devices_of(parse_topology("v5e:2x2"))
    assert "--xla_tpu_use_enhanced_launch_barrier=true" in os.environ["LIBTPU_INIT_ARGS"].split()


def test_a_plan_is_not_lost_with_its_executable(tmp_path):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "step")
    plan = make_plan(small_config(), parse_topology("v5e:2x4"), executable=path)
    assert plan.fits
    assert not plan.executable
    assert path in plan.not_saved
    kept = make_plan(small_config(), parse_topology("v5e:2x4"), executable=str(tmp_path / "step"))
    assert kept.executable == str(tmp_path / "step")
    assert (tmp_path / "step").stat().st_size > 1e6


def test_an_executable_of_a_sweep_is_refused(capsys):
    command = ["plan", "--config", "configs/nano.py", "--topology", "v5e:2x2", "--sweep"]
    assert main([*command, "--save-executable", "x"]) == 1
    assert "leave --sweep out" in capsys.readouterr().err


@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("width", [64, 128, 384, 512])
def test_the_attention_kernel_fits_every_chip_at_the_widths_of_the_networks(topology, width):
    device = devices_of(parse_topology(topology))[0]
    here = jax.sharding.SingleDeviceSharding(device)
    rows = jax.ShapeDtypeStruct((1, 4096, 1, width), jnp.bfloat16, sharding=here)
    assert jax.jit(splash_attention).lower(rows, rows, rows).compile()
