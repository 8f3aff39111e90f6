"""A network's shared evaluations against the plain formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.velocity_field import (
    NetworkField,
    PlainField,
    VelocityField,
    as_field,
    split_rows,
    stack_rows,
)
from vosr_jax.models.attention import plain_attention
from vosr_jax.models.lightning_dit import LightningDiT, LightningDiTSettings

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
def test_two_times_of_a_picture_share_its_memory_and_equal_the_plain_formula(settings, form):
    model, g = network(settings), given(settings)
    fast, plain = NetworkField(model, form), PlainField(form.velocity_fn(model))
    inputs = g["condition"], g["z_t"], g["t"]
    ours = fast.pair(*inputs, fast.remember(g["tokens"]), g["r"])
    theirs = plain.pair(*inputs, plain.remember(g["tokens"]), g["r"])
    for mine, yours, r in zip(ours, theirs, (g["t"], g["r"]), strict=True):
        np.testing.assert_allclose(mine, yours, atol=3e-5)
        np.testing.assert_allclose(mine, plain(*inputs, g["tokens"], r), atol=3e-5)
    again = fast.at(*inputs, fast.remember(g["tokens"]), g["r"])
    np.testing.assert_allclose(again, ours[1], atol=3e-5)


@pytest.mark.parametrize(
    ("settings", "form"), CASES, ids=["tokens", "endpoint", "pixels", "preconditioned"]
)
def test_the_weak_branch_with_constants_equals_the_plain_formula(settings, form):
    settings = dataclasses.replace(settings, r_embedding=False)
    model, g = network(settings), given(settings)
    inputs = g["condition"], g["weak"], g["z_t"], g["t"], g["tokens"]
    ours = NetworkField(model, form).branches(*inputs)
    theirs = PlainField(form.velocity_fn(model)).branches(*inputs)
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, yours, atol=3e-5)
    assert np.abs(ours[0] - ours[1]).max() > 0.1


def test_shared_memory_has_the_plain_formulas_gradients():
    model, g = network(TOKENS), given(TOKENS)
    graph, state = nnx.split(model)

    def loss(state, make) -> jax.Array:
        field = make(nnx.merge(graph, state))
        memory = field.remember(g["tokens"])
        a, b = field.pair(g["condition"], g["z_t"], g["t"], memory, g["r"])
        return jnp.sum(jnp.sin(a) + jnp.cos(2 * b))

    ours = jax.grad(loss)(state, lambda m: NetworkField(m, Parameterization()))
    theirs = jax.grad(loss)(state, PlainField)
    for mine, yours in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, yours, atol=1e-4 * (1 + np.abs(yours).max()))


@pytest.mark.parametrize("make", [lambda m: NetworkField(m, Parameterization()), PlainField])
def test_a_frozen_field_is_the_same_without_gradient(make):
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


def test_a_function_becomes_a_plain_field_and_a_field_stays_itself():
    field = as_field(lambda condition, z_t, t, tokens, r: z_t)
    assert isinstance(field, PlainField) and as_field(field) is field
    fast = NetworkField(network(DETAILED), Parameterization())
    assert isinstance(fast, VelocityField) and as_field(fast) is fast


def test_plain_attention_is_the_same_function():
    model, g = network(TOKENS), given(TOKENS)
    graph, state = nnx.split(model)
    plain_graph, _ = nnx.split(LightningDiT(TOKENS, rngs=nnx.Rngs(0), attention=plain_attention))
    inputs = g["condition"], g["z_t"], g["t"], g["tokens"], g["r"]
    plain = nnx.merge(plain_graph, state)
    np.testing.assert_allclose(plain(*inputs), model(*inputs), atol=1e-5)
