"""Attention's fast implementations beside the plain formula."""

import importlib
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.ad_checkpoint import saved_residuals

from vosr_jax.models.attention.dispatch import (
    ATTENTION,
    attention_on,
    cudnn_fits,
    keep_attention,
    plain_attention,
)
from vosr_jax.models.attention.head_by_head import head_attention
from vosr_jax.models.attention.splash import splash_attention, splash_fits
from vosr_jax.models.gpu_features import Gpu, gpu_of
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings

HALF = (jnp.bfloat16, jnp.float16)


def given(queries: int, keys: int, heads: int = 2, width: int = 64):
    shapes = ((1, queries, heads, width), (1, keys, heads, width), (1, keys, heads, width))
    own = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, shape) for key, shape in zip(own, shapes, strict=True)]


def assert_same_function(fast, inputs):
    """Values and gradients are the plain formula's."""

    def loss(attention, *inputs):
        return jnp.sum(jnp.sin(attention(*inputs)))

    np.testing.assert_allclose(fast(*inputs), plain_attention(*inputs), atol=2e-5)
    ours = jax.grad(loss, argnums=(1, 2, 3))(fast, *inputs)
    plain = jax.grad(loss, argnums=(1, 2, 3))(plain_attention, *inputs)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)


@pytest.mark.parametrize("queries, keys", [(256, 256), (128, 384), (129, 250), (128, 130)])
def test_the_splash_kernel_is_the_plain_formula_and_so_are_its_gradients(queries, keys):
    def splash(*inputs):
        return splash_attention(*inputs, interpret=True)

    assert_same_function(splash, given(queries, keys))


def test_what_pads_the_splash_kernels_inputs_changes_no_bit(monkeypatch):
    inputs = given(130, 250)
    clean = splash_attention(*inputs, interpret=True)

    def other(x):
        rows = -x.shape[1] % 128
        return jnp.pad(x, ((0, 0), (0, rows), (0, 0), (0, 0)), constant_values=3.0)

    monkeypatch.setattr("vosr_jax.models.attention.splash._pad", other)
    np.testing.assert_array_equal(splash_attention(*inputs, interpret=True), clean)


@pytest.mark.parametrize("queries, keys, rows", [(40, 40, 2), (33, 50, 1)])
def test_head_by_head_is_the_plain_formula_and_so_are_its_gradients(queries, keys, rows):
    inputs = [jnp.concatenate([x + i for i in range(rows)]) for x in given(queries, keys, 3, 16)]
    assert_same_function(head_attention, inputs)


def test_on_cpu_long_sequences_in_float32_go_head_by_head_and_their_scores_are_never_whole():
    def largest(queries, dtype=jnp.float32):
        inputs = [x.astype(dtype) for x in given(queries, 512, heads=8, width=8)]
        compiled = jax.jit(attention_on("cpu")).lower(*inputs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    scores = 4 * 8 * 512 * 512
    assert largest(512) < scores / 2 < scores <= largest(512, jnp.bfloat16)
    assert largest(511) >= scores * 511 / 512


def test_rematerialization_keeps_what_head_by_head_gives():
    inputs = given(512, 512, heads=2, width=8)
    keep = jax.checkpoint_policies.save_only_these_names(ATTENTION)

    def products(policy):
        run = jax.checkpoint(attention_on("cpu"), policy=policy)
        return str(jax.make_jaxpr(jax.grad(lambda *x: jnp.sum(run(*x))))(*inputs)).count("dot_")

    assert products(keep) < products(jax.checkpoint_policies.nothing_saveable)


def test_lengths_that_would_be_padding_above_all_fall_back():
    q, k, v = given(100, 129)
    assert not splash_fits(q, k)
    tokens = jnp.zeros((1, 1025, 1, 1))
    assert splash_fits(tokens, tokens)
    on_tpu = attention_on("tpu")
    np.testing.assert_array_equal(on_tpu(q, k, v), plain_attention(q, k, v))


def test_float32_is_never_left_to_a_kernel_of_lower_precision():
    inputs = given(128, 128)
    for platform in ("tpu", "gpu", "cpu"):
        found = attention_on(platform)(*inputs)
        np.testing.assert_array_equal(found, plain_attention(*inputs))


V100, T4 = Gpu(True, (7, 0), cudnn=91100), Gpu(True, (7, 5), cudnn=91100)
A100, H100 = Gpu(True, (8, 0), cudnn=91100), Gpu(True, (9, 0), cudnn=91100)
MI250 = Gpu(False, architecture="gfx90a")


def halves(width=64, dtype=jnp.bfloat16, keys=130):
    return [x.astype(dtype) for x in given(100, keys, width=width)]


def shapes(width=64, dtype=jnp.bfloat16):
    return [jax.ShapeDtypeStruct((1, length, 2, width), dtype) for length in (100, 130, 130)]


def test_cudnn_is_asked_where_its_kernel_runs_and_nowhere_else():
    assert all(cudnn_fits(*shapes(), gpu) for gpu in (A100, H100))
    assert cudnn_fits(*shapes(dtype=jnp.float16), A100)
    assert not any(cudnn_fits(*shapes(dtype=t), gpu) for gpu in (V100, T4, MI250) for t in HALF)
    assert not cudnn_fits(*shapes(dtype=jnp.float32), H100), "float32"
    assert not cudnn_fits(*shapes()[:2], shapes(dtype=jnp.float16)[2], H100)
    assert not cudnn_fits(*shapes(width=60), H100) and not cudnn_fits(*shapes(width=36), A100)
    assert cudnn_fits(*shapes(width=72), A100)
    assert cudnn_fits(*shapes(width=256), H100) and not cudnn_fits(*shapes(width=136), A100)
    assert not cudnn_fits(*shapes(width=264), H100)
    assert not cudnn_fits(*shapes(), Gpu(True, (9, 0), cudnn=0)), "the library is missing"
    for version, fits in ((91000, False), (91100, True)):
        assert cudnn_fits(*shapes(), Gpu(True, (10, 3), cudnn=version)) is fits


def test_a_gpu_that_cudnn_does_not_serve_gets_the_formula():
    for gpu in (V100, T4, MI250):
        for dtype in HALF:
            found = attention_on("gpu", gpu)(*halves(dtype=dtype))
            np.testing.assert_array_equal(found, plain_attention(*halves(dtype=dtype)))


def test_devices_say_what_gpus_they_are():
    def device(said):
        return types.SimpleNamespace(compute_capability=said)

    assert gpu_of(device("7.5")).capability == (7, 5) and gpu_of(device("12.0")).cuda
    rocm = gpu_of(device("gfx942:sramecc+:xnack-"))
    assert not rocm.cuda and rocm.has_bfloat16
    assert not gpu_of(device("gfx1030")).has_bfloat16 and not gpu_of(device("gfx906")).has_bfloat16
    assert [gpu.has_bfloat16 for gpu in (V100, T4, A100, H100)] == [False, False, True, True]
    # JAX's private name: without it no GPU would ever be given cuDNN.
    assert importlib.import_module("jax._src.lib").cuda_versions is None or gpu_of(device("9.0"))


@pytest.fixture
def traced_as_h100(monkeypatch):
    """cuDNN's attention can be traced here, though not run."""
    name = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{name}.check_cudnn_version", lambda: 91100)
    monkeypatch.setattr(f"{name}.check_compute_capability", lambda _: True)
    monkeypatch.setattr(f"{name}.is_cuda_compute_capability_equal", lambda _: False)
    return attention_on("gpu", H100)


def forward_passes(function, *inputs) -> int:
    """Of cuDNN, in the gradient."""
    gradient = jax.grad(lambda *x: jnp.sum(function(*x).astype(jnp.float32)))
    return str(jax.make_jaxpr(gradient)(*inputs)).count("dot_product_attention_fwd_wrapper[")


def test_rematerialization_keeps_what_cudnn_gives(traced_as_h100):
    def passes(policy):
        return forward_passes(jax.checkpoint(traced_as_h100, policy=policy), *halves())

    assert passes(keep_attention()) == 1
    assert passes(jax.checkpoint_policies.nothing_saveable) == 2
    # A name on the result alone would not do: the backward pass wants the logsumexp too.
    assert passes(jax.checkpoint_policies.save_only_these_names(ATTENTION)) == 2


def test_odd_lengths_go_to_cudnn_without_a_gradient_and_to_the_formula_with_one(traced_as_h100):
    odd = halves(keys=129)
    assert "dot_product_attention_fwd" in str(jax.make_jaxpr(traced_as_h100)(*odd))
    assert forward_passes(traced_as_h100, *odd) == 0

    def loss(attention, *inputs):
        return jnp.sum(jnp.sin(attention(*inputs).astype(jnp.float32)))

    ours = jax.grad(partial(loss, traced_as_h100), argnums=(0, 1, 2))(*odd)
    plain = jax.grad(partial(loss, plain_attention), argnums=(0, 1, 2))(*odd)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


@pytest.mark.parametrize("remat, runs", [("attention", 1), ("full", 2)])
def test_the_denoiser_keeps_attentions_result_on_gpu(traced_as_h100, remat, runs):
    settings = LightningDiTSettings(
        latent_channels=4, latent_size=8, width=32, depth=2, heads=2, token_width=None
    )
    model = LightningDiT(
        settings, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, remat=remat, attention=traced_as_h100
    )
    graph, state = nnx.split(model)
    latent = jnp.ones((1, 8, 8, 4))

    def run(state):
        return nnx.merge(graph, state)(latent, latent, jnp.ones(1), None)

    # The scan's bodies stand once in the program.
    assert forward_passes(run, state) == runs


def test_what_attention_gives_is_kept_once():
    inputs = given(512, 512, heads=2, width=8)
    on_cpu = attention_on("cpu")

    def run(query, key, value):
        return jnp.sum(jnp.sin(on_cpu(query, key, value)))

    kept = saved_residuals(jax.checkpoint(run, policy=keep_attention()), *inputs)
    sizes = [aval.size for aval, why in kept if "argument" not in why]
    # The result and a logsumexp for every query and head.
    assert sorted(sizes) == [2 * 512, 512 * 2 * 8]
