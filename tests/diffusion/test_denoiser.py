"""A network's shared evaluations against the plain formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.diffusion.denoiser import (
    CachedDenoiser,
    Denoiser,
    DirectDenoiser,
    as_denoiser,
    split_rows,
    stack_rows,
)
from vosr_jax.diffusion.objectives.distillation import Sample, instant_and_average
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.models.attention.dispatch import plain_attention
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings

TOKENS = LightningDiTSettings(
    latent_channels=3,
    latent_size=4,
    patch_size=2,
    width=32,
    depth=2,
    heads=2,
    token_width=6,
    r_embedding=True,
)
DETAILED = dataclasses.replace(TOKENS, token_width=None, detail_width=8)
PIXELS = dataclasses.replace(DETAILED, latent_channels=12, pixel_width=4, pixel_scale=2)
ENDPOINT = Parameterization("residual", "endpoint", smallest_t=0.2)


def network(settings: LightningDiTSettings) -> LightningDiT:
    """A network none of whose parts starts at zero."""
    model = LightningDiT(settings, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, moved))


def given(settings: LightningDiTSettings, batch: int = 3) -> dict:
    rng = np.random.default_rng(0)
    latent = (batch, 4, 4, settings.latent_channels)
    tokens = settings.token_width and rng.normal(size=(batch, 5, settings.token_width))
    return {
        "condition": jnp.asarray(rng.normal(size=latent), jnp.float32),
        "weak": jnp.asarray(rng.normal(size=latent), jnp.float32),
        "z_t": jnp.asarray(rng.normal(size=latent), jnp.float32),
        "t": jnp.asarray([0.9, 0.5, 0.1]),
        "r": jnp.asarray([0.0, 0.2, 0.1]),
        "tokens": None if tokens is None else jnp.asarray(tokens, jnp.float32),
    }


def batch_of(g: dict) -> Sample:
    """The same as a batch of a distillation; what is not read is None."""
    names = {"condition", "z_t", "t", "r", "tokens"}
    rest = {field.name: None for field in dataclasses.fields(Sample) if field.name not in names}
    return Sample(**{name: g[name] for name in names}, **rest)


CASES = [
    (TOKENS, Parameterization()),
    (DETAILED, ENDPOINT),
    (PIXELS, ENDPOINT),
    (DETAILED, Parameterization("residual", "preconditioned")),
]
NAMES = ["tokens", "endpoint", "pixels", "preconditioned"]


@pytest.mark.parametrize(
    ("settings", "form"), CASES, ids=["tokens", "endpoint", "pixels", "preconditioned"]
)
def test_two_times_of_a_picture_share_its_context_and_equal_the_plain_formula(settings, form):
    model, g = network(settings), given(settings)
    fast, plain = CachedDenoiser(model, form), DirectDenoiser(model, form)
    inputs = g["condition"], g["z_t"], g["t"]
    sample = batch_of(g)
    ours = instant_and_average(fast, fast.precompute(g["tokens"]), sample)
    theirs = instant_and_average(plain, plain.precompute(g["tokens"]), sample)
    for mine, yours, r in zip(ours, theirs, (g["t"], g["r"]), strict=True):
        np.testing.assert_allclose(mine, yours, atol=3e-5)
        np.testing.assert_allclose(mine, plain(*inputs, g["tokens"], r), atol=3e-5)
    times = fast.times(g["t"], g["r"])
    again = fast.velocity(*inputs[:2], times, fast.precompute(g["tokens"]))
    np.testing.assert_allclose(again, ours[1], atol=3e-5)


@pytest.mark.parametrize(
    ("settings", "form"), CASES, ids=["tokens", "endpoint", "pixels", "preconditioned"]
)
def test_the_weak_branch_with_constants_equals_the_plain_formula(settings, form):
    settings = dataclasses.replace(settings, r_embedding=False)
    model, g = network(settings), given(settings)
    latents = g["condition"], g["weak"], g["z_t"]

    def guided(denoiser, scale):
        tokens = denoiser.precompute(g["tokens"])
        shared = denoiser.times(g["t"]), tokens, denoiser.null_context()
        return np.asarray(denoiser.guided(*latents, *shared, scale))

    direct = DirectDenoiser(model, form)
    makers = [CachedDenoiser(model, form, keep_kv=kept) for kept in (True, False)]
    for scale in (0.0, 1.0, -0.5, np.float32([0.5, 2.0, 1.0])[:, None, None, None]):
        for fast in makers:
            np.testing.assert_allclose(guided(fast, scale), guided(direct, scale), atol=6e-5)
    nothing = None if g["tokens"] is None else jnp.zeros_like(g["tokens"])
    weak = direct(g["weak"], g["z_t"], g["t"], nothing)
    np.testing.assert_allclose(guided(direct, 0.0), weak, atol=3e-5)
    full = direct(g["condition"], g["z_t"], g["t"], g["tokens"])
    np.testing.assert_allclose(guided(direct, 1.0), full, atol=3e-5)
    assert np.abs(full - weak).max() > 0.1


def test_a_shared_context_has_the_plain_formulas_gradients():
    model, g = network(TOKENS), given(TOKENS)
    graph, state = nnx.split(model)

    def loss(state, make) -> jax.Array:
        denoiser = make(nnx.merge(graph, state))
        a, b = instant_and_average(denoiser, denoiser.precompute(g["tokens"]), batch_of(g))
        return jnp.sum(jnp.sin(a) + jnp.cos(2 * b))

    ours = jax.grad(loss)(state, lambda m: CachedDenoiser(m, Parameterization()))
    theirs = jax.grad(loss)(state, DirectDenoiser)
    for mine, yours in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, yours, atol=1e-4 * (1 + np.abs(yours).max()))


@pytest.mark.parametrize("make", [lambda m: CachedDenoiser(m, Parameterization()), DirectDenoiser])
def test_a_frozen_denoiser_is_the_same_without_gradient(make):
    model, g = network(DETAILED), given(DETAILED)
    graph, state = nnx.split(model)
    inputs = g["condition"], g["z_t"], g["t"], None, g["r"]

    def loss(state) -> jax.Array:
        return jnp.sum(make(nnx.merge(graph, state)).frozen()(*inputs) ** 2)

    value, gradients = jax.value_and_grad(loss)(state)
    assert value == pytest.approx(float(jnp.sum(make(model)(*inputs) ** 2)), rel=1e-5)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(gradients))


def test_rows_are_stacked_beside_their_twins():
    first, second = jnp.arange(3.0)[:, None], jnp.arange(3.0)[:, None] + 10
    both = stack_rows(first, second)
    np.testing.assert_array_equal(both[:, 0], [0, 10, 1, 11, 2, 12])
    for part, whole in zip(split_rows(both), (first, second), strict=True):
        np.testing.assert_array_equal(part, whole)


def test_a_function_becomes_a_direct_denoiser_and_a_denoiser_stays_itself():
    direct = as_denoiser(lambda condition, z_t, t, tokens, r: z_t)
    assert isinstance(direct, DirectDenoiser) and as_denoiser(direct) is direct
    fast = CachedDenoiser(network(DETAILED), Parameterization())
    assert isinstance(fast, Denoiser) and as_denoiser(fast) is fast


def test_plain_attention_is_the_same_function():
    model, g = network(TOKENS), given(TOKENS)
    graph, state = nnx.split(model)
    plain_graph, _ = nnx.split(LightningDiT(TOKENS, rngs=nnx.Rngs(0), attention=plain_attention))
    inputs = g["condition"], g["z_t"], g["t"], g["tokens"], g["r"]
    plain = nnx.merge(plain_graph, state)
    np.testing.assert_allclose(plain(*inputs), model(*inputs), atol=1e-5)
