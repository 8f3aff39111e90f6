"""The adversarial term: what it adds, what its discriminator learns, and that a run carries it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.errors import UserError
from vosr_jax.models.discriminator import FeatureDiscriminator, PatchDiscriminator
from vosr_jax.training.adversary import make_adversary
from vosr_jax.training.build import abstract_state, mesh_of
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.setup import load_train_step
from vosr_jax.training.step import TrainStep

WEIGHT = 0.5
# VGG16 takes a minute to compile.
KINDS = pytest.mark.parametrize("kind", ("patch", pytest.param("features", marks=pytest.mark.slow)))


@functools.cache
def train_step_of(kind: str, weight: float = WEIGHT, microbatches: int = 1):
    adversarial = {"adversary": kind, "adversarial_weight": weight, "adversarial_width": 4}
    perceptual = {"perceptual_weight": 1.0, "perceptual_rows": 3, "perceptual_crop": 32}
    config = tiny_config(
        objective=adversarial | (perceptual if kind == "features" else {}),
        train={"microbatches": microbatches},
    )
    mesh = mesh_of(config)
    return *load_train_step(config, mesh), mesh


@functools.cache
def initial(kind: str, weight: float = WEIGHT):
    """A state whose network already changes the picture: it starts as a change of nothing."""
    state = train_step_of(kind, weight)[0].new_state()
    rng = np.random.default_rng(0)
    for name, value in state.parameters.items():
        noise = 0.02 * rng.normal(size=value.shape)
        state.parameters[name] = value + jnp.asarray(noise, jnp.float32)
    return state


def gradients(train_step: TrainStep, weights: dict, state):
    rival = None if state.discriminator is None else state.discriminator["parameters"]
    batch = tiny_batch(0)
    run = jax.jit(lambda p: train_step.gradient(p, weights, batch, jnp.int32(0), rival))
    return run(state.parameters)


def far_apart(a: dict, b: dict) -> bool:
    return any(np.abs(a[name] - b[name]).max() > 1e-7 for name in a)


def test_a_score_sees_the_picture_and_its_input_and_nothing_far_away():
    network = PatchDiscriminator(4, rngs=nnx.Rngs(0))
    image, lq = jax.random.normal(jax.random.key(0), (2, 1, 64, 64, 3))
    (scores,) = network(image, lq)
    assert scores.shape == (1, 16, 16)
    by_image, by_lq = jax.grad(lambda a, b: network(a, b)[0][0, 8, 8], (0, 1))(image, lq)
    seen = np.abs(np.stack([by_image, by_lq])).max((0, 1, 4))
    assert np.abs(by_lq).max() > 0 and np.abs(by_image).max() > 0
    assert not seen[:, :16].any() and not seen[52:].any()


def test_a_map_has_scores_of_its_own():
    network = FeatureDiscriminator([6, 10], 4, rngs=nnx.Rngs(0))
    maps = [jax.random.normal(jax.random.key(n), (2, 16 >> n, 16 >> n, 6 + 4 * n)) for n in (0, 1)]
    first, second = network(*maps)
    assert first.shape == (2, 16, 16) and second.shape == (2, 8, 8)
    again, other = network(maps[0], -maps[1])
    np.testing.assert_array_equal(first, again)
    assert np.abs(second - other).max() > 0


@KINDS
def test_the_term_moves_the_network_and_the_discriminator_learns_the_other_way(kind):
    train_step, weights, _ = train_step_of(kind)
    state = initial(kind)
    with_it, loss, metrics = gradients(train_step, weights, state)
    plain_method, plain_weights, _ = train_step_of(kind, 0.0)
    plain, plain_loss, _ = gradients(plain_method, plain_weights, initial(kind, 0.0))
    mean = float(jnp.mean(metrics["adversarial_rows"]))
    assert float(loss - plain_loss) == pytest.approx(WEIGHT * mean, rel=1e-3)
    assert far_apart(with_it, plain)
    # softplus(a) - softplus(-a) = a: what one gains the other loses.
    own = metrics["discriminator_gradient"]
    moved = {k: v - 0.1 * own[k] for k, v in state.discriminator["parameters"].items()}
    rival = state.discriminator | {"parameters": moved}
    after = gradients(
        train_step, weights, state.__class__(**vars(state) | {"discriminator": rival})
    )[2]
    assert after["discriminator_rows"].mean() < metrics["discriminator_rows"].mean()
    assert after["adversarial_rows"].mean() > metrics["adversarial_rows"].mean()


@pytest.mark.slow
@KINDS
def test_microbatches_give_the_same_gradients(kind):
    state = initial(kind)
    whole, parts = (gradients(*train_step_of(kind, WEIGHT, n)[:2], state) for n in (1, 2))
    for name, value in whole[0].items():
        np.testing.assert_allclose(parts[0][name], value, atol=1e-5, err_msg=name)
    theirs = parts[2]["discriminator_gradient"]
    for name, value in whole[2]["discriminator_gradient"].items():
        np.testing.assert_allclose(theirs[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
@KINDS
def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(kind, tmp_path):
    train_step, weights, mesh = train_step_of(kind)
    step = jax.jit(train_step.step)
    after = [initial(kind)]
    for number in range(2):
        state, metrics = step(after[-1], weights, tiny_batch(number))
        after.append(state)
    assert {"adversarial", "discriminator"} <= metrics.keys()
    before, first = (s.discriminator["parameters"] for s in after[:2])
    assert far_apart(before, first)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(after[1], samples_seen=4)
    checkpoints.close()
    resumed = Checkpoints(tmp_path).restore(abstract_state(train_step, mesh))
    again, _ = step(resumed, weights, tiny_batch(1))
    assert jax.tree.structure(again) == jax.tree.structure(after[2])
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(after[2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other, _, _ = train_step_of(kind, 0.0)
    with pytest.raises(UserError, match="another discriminator"):
        Checkpoints(tmp_path).restore(abstract_state(other, mesh))


def test_a_discriminator_whose_gradients_are_not_clipped_learns():
    config = tiny_config(
        objective={"adversarial_weight": 0.1, "adversarial_width": 8},
        optimizer={"max_grad_norm": 0.0, "weight_decay": 0.0},
    )
    adversary = make_adversary(
        config, frozen=object(), perceptual=None
    )  # looked at in a step alone
    state = adversary.new_state()
    gradient = jax.tree.map(jnp.ones_like, state["parameters"])
    moved = adversary.update(state, gradient)["parameters"]
    assert all((moved[name] != value).any() for name, value in state["parameters"].items())
