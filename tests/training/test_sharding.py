"""Sharding: the same losses on every mesh, parameters really split, rows where they belong."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.training.simulated import on_devices
from tests.training.tiny import tiny_config
from vosr_jax.errors import UserError
from vosr_jax.models.lora import adapters_of, kernels_of
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.training.sharding import make_mesh, parameter_spec, sharded_over
from vosr_jax.training.telemetry import parameter_table


def slow_cases(*names: str) -> list:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


# The fast tests run the first mesh alone: it has every axis.
FIRST = "data 2 fsdp 2 tensor 2"
MESHES = [FIRST, *slow_cases("fsdp 8", "data 8", "data 2 fsdp 4", "microbatches")]
ADAPTERS = slow_cases("adapters, fsdp 8", "adapters, data 2 fsdp 2 tensor 2")
DISTILLED = slow_cases("distilled, fsdp 8", "distilled, data 2 fsdp 2 tensor 2")


class Results(dict):
    """What losses_on_meshes.py prints by mesh, in a process with 8 simulated devices."""

    def __missing__(self, mesh: str) -> dict:
        first = ["single", FIRST]
        wanted = ["--only", *first] if mesh in first else ["--except", *first]
        self.update(on_devices(8, "tests.training.losses_on_meshes", *wanted))
        return self[mesh]


@pytest.fixture(scope="module")
def results() -> dict:
    """Computed when a test asks for a mesh."""
    return Results()


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_the_single_devices_on_every_mesh(results: dict, mesh: str):
    single, sharded = results["single"], results[mesh]
    assert len(set(single["losses"])) == len(single["losses"]) == 10
    np.testing.assert_allclose(sharded["losses"], single["losses"], rtol=1e-5)
    np.testing.assert_allclose(sharded["norms"], single["norms"], rtol=1e-4)
    np.testing.assert_allclose(sharded["rows"], single["rows"], rtol=1e-4)


@pytest.mark.parametrize("mesh", DISTILLED)
def test_a_distillation_steps_losses_are_the_single_devices(results: dict, mesh: str):
    single, sharded = results["distilled, single"], results[mesh]
    assert len(set(single["losses"])) == len(single["losses"]) == 10
    np.testing.assert_allclose(sharded["losses"], single["losses"], rtol=1e-5)
    np.testing.assert_allclose(sharded["norms"], single["norms"], rtol=1e-4)
    np.testing.assert_allclose(sharded["rows"], single["rows"], rtol=1e-4)


@pytest.mark.parametrize("mesh", ADAPTERS)
def test_an_adapters_losses_are_the_single_devices(results: dict, mesh: str):
    single, sharded = results["adapters, single"], results[mesh]
    assert len(set(single["losses"])) == len(single["losses"]) == 10
    np.testing.assert_allclose(sharded["losses"], single["losses"], rtol=1e-5)
    np.testing.assert_allclose(sharded["norms"], single["norms"], rtol=1e-4)
    np.testing.assert_allclose(sharded["rows"], single["rows"], rtol=1e-4)


@pytest.mark.slow
def test_the_adapters_base_is_split_and_has_no_slots_and_they_lie_whole(results: dict):
    found = results["adapters, fsdp 8"]
    assert len(found["shards"]) == 3 and all(".lora." in name for name in found["shards"])
    for name, leaves in found["shards"].items():
        assert len(leaves) == 4, f"{name}: parameter, EMA and AdamW's two slots"
        assert all(whole == shard for whole, shard in leaves), name
    assert len(found["base"]) == 3
    for name, (whole, shard) in found["base"].items():
        assert np.prod(whole) == 8 * np.prod(shard), name


@pytest.mark.slow
def test_the_teacher_is_split_as_the_student_is(results: dict):
    for name, (whole, shard) in results["distilled, fsdp 8"]["teacher"].items():
        assert np.prod(whole) == 8 * np.prod(shard), name


@pytest.mark.parametrize("mesh", [FIRST, *slow_cases("fsdp 8")])
def test_parameters_ema_and_optimizer_are_split(results: dict, mesh: str):
    parts = {FIRST: 4, "fsdp 8": 8}[mesh]
    shards = results[mesh]["shards"]
    assert len(shards) == 3
    for name, leaves in shards.items():
        assert len(leaves) == 4, f"{name}: parameter, EMA and AdamW's two slots"
        for whole, shard in leaves:
            assert np.prod(whole) == parts * np.prod(shard), (name, whole, shard)


@pytest.mark.slow
def test_the_replicas_of_a_data_mesh_hold_everything(results: dict):
    for leaves in results["data 8"]["shards"].values():
        assert all(whole == shard for whole, shard in leaves)


def fake_mesh(data: int, fsdp: int, tensor: int, processes: int) -> SimpleNamespace:
    """Devices of several processes in a row, as the functions under test see a mesh."""
    count = data * fsdp * tensor
    devices = [SimpleNamespace(process_index=i * processes // count) for i in range(count)]
    array = np.array(devices, object).reshape(data, fsdp, tensor)
    return SimpleNamespace(devices=array, shape={"data": data, "fsdp": fsdp, "tensor": tensor})


def test_an_axis_that_does_not_divide_is_left_out():
    mesh = fake_mesh(1, 8, 1, 1)
    assert not sharded_over(
        parameter_spec("blocks.attn.qkv.kernel", (2, 20, 3, 4, 8), mesh), "fsdp"
    )
    assert sharded_over(parameter_spec("blocks.attn.qkv.kernel", (2, 24, 3, 4, 8), mesh), "fsdp")
    both = fake_mesh(1, 4, 2, 1)
    assert parameter_spec("blocks.attn.proj.kernel", (2, 24, 8), both)[1] == ("tensor", "fsdp")
    assert parameter_spec("blocks.attn.proj.kernel", (2, 20, 8), both)[1] == "tensor"


def test_every_large_parameter_has_a_rule():
    mesh = fake_mesh(1, 8, 1, 1)
    config = tiny_config(
        model={"r_embedding": True, "width": 64, "swiglu_multiple": 8},
        objective={"name": "rcgm"},
        encoder={"kind": "dinov2", "path": "none", "token_width": 64},
    )
    for name, value in denoiser_blueprint(config).shapes.items():
        if value.size >= 64 * 64:
            assert sharded_over(parameter_spec(name, value.shape, mesh), "fsdp"), name


def test_an_adapter_lies_over_tensor_as_its_kernel_and_whole_over_fsdp():
    mesh = fake_mesh(1, 4, 2, 1)
    encoder = {"kind": "dinov2", "path": "none", "token_width": 64}
    for swiglu in (True, False):
        config = tiny_config(model={"lora_rank": 2, "swiglu": swiglu}, encoder=encoder)
        shapes = denoiser_blueprint(config).shapes
        for kernel, (down, up) in kernels_of(adapters_of(shapes)).items():
            whole, thin, wide = (
                tuple(parameter_spec(name, shapes[name].shape, mesh)) for name in (kernel, down, up)
            )
            assert not sharded_over(thin, "fsdp") and not sharded_over(wide, "fsdp"), kernel
            assert sharded_over(thin[1:2], "tensor") == sharded_over(whole[1:2], "tensor"), down
            assert sharded_over(wide, "tensor") == sharded_over(whole[2:], "tensor"), up


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    devices = [object()] * 8
    with pytest.raises(UserError, match="must be the 8 devices, not 3 \\* 1 \\* 1"):
        make_mesh(3, 1, 1, devices)
    with pytest.raises(UserError, match="may be -1"):
        make_mesh(-1, -1, 1, devices)


def test_the_description_names_every_parameter_and_counts_them():
    shapes = denoiser_blueprint(tiny_config()).shapes
    text = parameter_table(shapes, make_mesh(1, 1, 1))
    assert all(name in text for name in shapes)
    assert f"{sum(s.size for s in shapes.values()):,} parameters" in text
