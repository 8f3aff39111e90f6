"""Adapters: nothing changes at their start, and merged they give what they give beside the base."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.models.lora import (
    adapters_of,
    base_of,
    kernels_of,
    merged_kernel,
    share_of,
    trained_of,
)
from vosr_jax.parameters.blueprint import Blueprint

SETTINGS = LightningDiTSettings(
    latent_size=8, width=32, depth=2, heads=4, token_width=16, swiglu_multiple=32
)
RANK, ALPHA = 3, 6.0


def blueprint(rank: int, dtype=jnp.float32) -> Blueprint[LightningDiT]:
    settings = dataclasses.replace(SETTINGS, lora_rank=rank, lora_alpha=ALPHA)
    return Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(0), dtype=dtype))


def moved(parameters: dict, seed: int = 0) -> dict:
    """None of them zero, so that the last layer lets everything through."""
    rng = np.random.default_rng(seed)
    return {k: v + rng.normal(0, 0.05, v.shape).astype(np.float32) for k, v in parameters.items()}


def output(network: LightningDiT) -> np.ndarray:
    rng = np.random.default_rng(1)
    condition, noisy = rng.normal(size=(2, 2, 8, 8, 4)).astype(np.float32)
    tokens = rng.normal(size=(2, 5, 16)).astype(np.float32)
    call = jax.jit(lambda net: net(condition, noisy, jnp.array([0.3, 0.9]), tokens))
    return np.asarray(call(network))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_at_the_start_the_network_is_the_base_bit_for_bit(dtype):
    base = moved(blueprint(0).initialize())
    adapters = adapters_of(blueprint(RANK).initialize())
    assert all(np.any(v != 0) for k, v in adapters.items() if k.endswith("down"))
    plain = output(blueprint(0, dtype).merge(base))
    np.testing.assert_array_equal(output(blueprint(RANK, dtype).merge(base | adapters)), plain)
    assert np.any(output(blueprint(RANK, dtype).merge(base | moved(adapters))) != plain)


def test_merged_into_the_matrices_the_network_gives_the_same():
    base = moved(blueprint(0).initialize())
    adapters = moved(adapters_of(blueprint(RANK).initialize()))
    merged = dict(base)
    for kernel, (down, up) in kernels_of(adapters).items():
        merged[kernel] = merged_kernel(base[kernel], adapters[down], adapters[up], ALPHA / RANK)
    beside, within = (
        output(blueprint(RANK).merge(base | adapters)),
        output(blueprint(0).merge(merged)),
    )
    assert np.max(np.abs(beside)) > 0.1
    np.testing.assert_allclose(within, beside, atol=2e-6)


def test_adapters_lie_on_the_blocks_matrices_and_leave_all_other_names_alone():
    shapes = blueprint(RANK).shapes
    assert base_of(shapes).keys() == blueprint(0).shapes.keys()
    assert not adapters_of(blueprint(0).shapes)
    assert trained_of(shapes) == adapters_of(shapes)
    assert trained_of(base_of(shapes)) == base_of(shapes)
    matrices = ("attn.qkv", "attn.proj", "cross_attn.query", "cross_attn.value", "mlp.gate_up")
    wanted = {f"blocks.{name}.kernel" for name in (*matrices, "mlp.out")}
    assert kernels_of(adapters_of(shapes)).keys() == wanted


def test_a_new_networks_own_values_do_not_depend_on_the_rank():
    plain, ranked = blueprint(0).initialize(), blueprint(RANK).initialize()
    blocks = [name for name in plain if name.startswith("blocks.")]
    assert all(np.array_equal(plain[name], ranked[name]) for name in blocks)


def test_rank_16_trains_less_than_a_fiftieth_of_the_released_network():
    settings = LightningDiTSettings.vosr_0_5b(swiglu_multiple=128, lora_rank=16)
    shapes = Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(0))).shapes
    assert sum(math.prod(s.shape) for s in adapters_of(shapes).values()) == 9_289_728
    assert 0.018 < share_of(shapes) < 0.02
