"""Precisions: what is cast, how far the results are apart, and the guard."""

import dataclasses
import functools
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.test_lightning_dit import SMALL, network
from tests.restoration.autoencoders import qwen, stable_diffusion
from tests.restoration.models import tiny_model
from vosr_jax.diffusion.denoiser import CachedDenoiser, DirectDenoiser
from vosr_jax.diffusion.sampler import (
    SamplerSettings,
    build_context,
    euler_step,
    step_velocity,
)
from vosr_jax.errors import UserError
from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.models.layers import products_in
from vosr_jax.parameters.blueprint import flatten
from vosr_jax.restoration.denoiser_programs import (
    _shared,
    _velocity,
    at_precision,
    first_finite,
)
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.restoration.settings import settle
from vosr_jax.restoration.tiled.latent import plan_tiles

_PLAIN = dataclasses.replace(SMALL, r_embedding=False)
_SAMPLER = SamplerSettings(steps=2, guidance_scale=0.5)


def _inputs(tiles: int | None = None):
    rng = np.random.default_rng(3)
    shape = (1, 16, 16, 4) if tiles else (1, 8, 8, 4)
    tokens = (1, tiles, 5, 12) if tiles else (1, 5, 12)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in (shape, shape, tokens))


@functools.cache
def _model(precision: str) -> RestorationModel:
    denoiser = network(_PLAIN)
    return dataclasses.replace(tiny_model(), denoiser=denoiser, precision=precision)


def test_mixed_casts_the_blocks_matrices_alone_and_bfloat16_everything():
    mixed = flatten(at_precision(network(_PLAIN), "mixed"))
    short = {name for name, value in mixed.items() if value.dtype == jnp.bfloat16}
    matrices = ("attn.qkv", "attn.proj", "query", "key", "value", "cross_attn.proj", "mlp.")
    assert short and all(n.startswith("blocks.") and any(m in n for m in matrices) for n in short)
    assert not any("norm" in name or "table" in name for name in short)
    everything = flatten(at_precision(network(_PLAIN), "bfloat16"))
    assert all(value.dtype == jnp.bfloat16 for value in everything.values())
    assert all(v.dtype == jnp.float32 for v in flatten(network(_PLAIN)).values())
    half = flatten(at_precision(network(_PLAIN), "float16"))
    assert {name for name, value in half.items() if value.dtype == jnp.float16} == short


def test_auto_takes_what_suits_the_device_and_unknown_names_are_refused():
    assert settle("auto", "auto", "cpu") == ("float32", "float32")
    assert settle("auto", "auto", "gpu") == ("float16", "float16")
    assert settle("auto", "float16", "tpu") == ("mixed", "float16")
    with pytest.raises(UserError, match="precision 'half' is unknown; choose float32, float16"):
        settle("half", "float32", "cpu")
    with pytest.raises(UserError, match="autoencoder_precision 'mixed' is unknown"):
        settle("float32", "mixed", "cpu")


@pytest.mark.parametrize("kind", ["sd2", "qwen"])
def test_the_autoencoders_products_alone_are_short(kind):
    exact = stable_diffusion() if kind == "sd2" else qwen()
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)), jnp.float32)
    latent = encode(exact, image)
    error = {}
    for dtype in (jnp.float16, jnp.bfloat16):
        short = products_in(exact, dtype)
        kernels = {n: v for n, v in flatten(short).items() if n.endswith("kernel")}
        assert kernels and all(v.dtype == dtype for v in kernels.values())
        made = encode(short, image), decode(short, latent)
        expected = latent, decode(exact, latent)
        assert all(x.dtype == jnp.float32 for x in made)
        error[dtype] = max(float(jnp.abs(a - b).max()) for a, b in zip(made, expected, strict=True))
    assert 0 < error[jnp.float16] < error[jnp.bfloat16] < 0.2
    assert all(v.dtype == jnp.float32 for v in flatten(exact).values())


def test_an_autoencoder_that_overflows_in_float16_runs_again_in_float32():
    exact = nnx.merge(*nnx.split(stable_diffusion()), copy=True)
    kernel, bias = exact.decoder.conv_in.kernel, exact.decoder.conv_in.bias
    kernel[...], bias[...] = kernel[...] * 1e7, bias[...] * 1e7
    model = dataclasses.replace(tiny_model(), autoencoder=exact)
    short = dataclasses.replace(model, autoencoder_precision="float16")
    latent = jnp.ones((1, 4, 4, 4))
    with pytest.warns(UserWarning, match="the autoencoder ran again in float32: float16"):
        made = short.decode(latent)
    np.testing.assert_array_equal(made, model.decode(latent))


def test_short_precisions_are_near_float32_and_mixed_is_nearer():
    lq, noise, tokens = _inputs()
    exact = _model("float32").sample(lq, noise, tokens, _SAMPLER)
    error = {}
    for precision in ("float16", "mixed", "bfloat16"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            short = _model(precision).sample(lq, noise, tokens, _SAMPLER)
        error[precision] = float(jnp.abs(short - exact).mean())
    assert 1e-6 < error["float16"] < 0.5 * error["mixed"]
    assert error["mixed"] < error["bfloat16"] < 0.1


class _Overflowing(CachedDenoiser):
    """Gives what is not finite in rows whose latent begins above a limit."""

    def guided(self, condition, *rest):
        bad = condition[:, 0, 0, 0] > 4.0
        return jnp.where(bad[:, None, None, None], jnp.inf, super().guided(condition, *rest))


def test_rows_that_overflow_are_repeated_in_float32_and_the_others_stay():
    exact, short = network(_PLAIN), at_precision(network(_PLAIN), "mixed")
    lq, noise, tokens = (jnp.concatenate([x, 0.5 * x]) for x in _inputs())
    lq = lq.at[0, 0, 0, 0].set(5.0)

    def run(fast, in_float32=None):
        denoisers = [fast] if in_float32 is None else [fast, in_float32]
        shared = [build_context(one, _SAMPLER) for one in denoisers]
        contexts = [one.precompute(tokens) for one in denoisers]
        z, replaced = noise, []
        for guided, first, last in _SAMPLER.runs():
            for index in range(first, last):
                step = [one.at(index) for one in shared]
                calls = [
                    functools.partial(step_velocity, *one, lq, z, guided=guided)
                    for one in zip(denoisers, step, contexts, strict=True)
                ]
                velocity, rows = first_finite(calls[0](), calls[1] if len(calls) > 1 else None)
                z = euler_step(z, velocity, step[0])
                replaced.append(np.asarray(rows).tolist())
        return np.asarray(z), replaced

    direct, fast = DirectDenoiser(exact), CachedDenoiser(short)
    mended, replaced = run(_Overflowing(short), direct)
    np.testing.assert_allclose(mended[0], run(direct)[0][0], atol=1e-5)
    np.testing.assert_allclose(mended[1], run(fast)[0][1], atol=1e-6)
    assert np.abs(mended[1] - run(direct)[0][1]).max() > 1e-5
    assert replaced == [[True, False]] * _SAMPLER.steps
    assert not np.isfinite(run(_Overflowing(short))[0][0]).all()


def _huge(denoiser, factor: float):
    """The same function; the values of the cross-attention are larger by a factor inside."""
    other = denoiser.with_dtype(jnp.float32)
    value, proj = other.blocks.cross_attn.value, other.blocks.cross_attn.proj
    for parameter in (value.kernel, value.bias):
        parameter[...] = parameter[...] * factor
    proj.kernel[...] = proj.kernel[...] / factor
    return other


@pytest.fixture
def short_range(monkeypatch):
    """Short products overflow at 65504, as those of float16 do."""
    from vosr_jax.models import layers

    plain = layers.Linear.__call__

    def overflowing(self, x, dtype=jnp.float32):
        y = plain(self, x, dtype)
        if jnp.dtype(dtype) == jnp.float32:
            return y
        return jnp.where(jnp.abs(y) > 65504, jnp.inf, y)

    monkeypatch.setattr(layers.Linear, "__call__", overflowing)


def test_tiles_whose_activations_overflow_are_counted_and_right(short_range):
    grid = plan_tiles((16, 16), 8, 0, 1, 2)
    lq, noise, tokens = _inputs(tiles=len(grid.starts))
    model = _model("float32")
    huge = dataclasses.replace(model, denoiser=_huge(model.denoiser, 1e6), precision="mixed")
    exact = dataclasses.replace(huge, precision="float32")
    arguments = lq, noise, tokens, _SAMPLER, grid, 4
    # Nine tiles in each of two steps; the last batch's three fillers do not count.
    with pytest.warns(UserWarning, match="^18 tiles repeated in float32: mixed"):
        ours = huge.sample(*arguments)
    np.testing.assert_allclose(ours, exact.sample(*arguments), atol=1e-4)


def test_a_model_that_is_not_finite_in_float32_either_is_named():
    lq, noise, tokens = _inputs()
    for precision in ("float32", "bfloat16"):
        with pytest.raises(UserError, match="model 'tiny'"):
            _model(precision).sample(lq.at[0, 0, 0, 0].set(jnp.nan), noise, tokens, _SAMPLER)


def test_progress_comes_after_every_question_and_changes_nothing():
    lq, noise, tokens = _inputs()
    told: list[int] = []
    watched = _model("float32").sample(
        lq, noise, tokens, _SAMPLER, on_evaluation=lambda: told.append(1)
    )
    assert len(told) == _SAMPLER.steps
    np.testing.assert_array_equal(watched, _model("float32").sample(lq, noise, tokens, _SAMPLER))


def test_keys_that_are_not_kept_give_the_same(monkeypatch):
    from vosr_jax.restoration import denoiser_programs, denoising

    lq, noise, tokens = _inputs()
    kept = _model("float32").sample(lq, noise, tokens, _SAMPLER)
    monkeypatch.setattr(denoising, "KEPT_BYTES", 0)
    assert denoiser_programs.kept_bytes(network(_PLAIN), (1, *tokens.shape)) == 2 * 3 * 32 * 5 * 4
    anew = _model("float32").sample(lq, noise, tokens, _SAMPLER)
    np.testing.assert_allclose(anew, kept, atol=1e-5)


def test_another_guidance_scale_compiles_nothing_anew():
    lq, noise, tokens = _inputs()
    _model("float32").sample(lq, noise, tokens, _SAMPLER)
    before = _velocity._cache_size(), _shared._cache_size()
    changed = dataclasses.replace(_SAMPLER, guidance_scale=-0.5, weak_strength=0.2)
    _model("float32").sample(lq, noise, tokens, changed)
    assert (_velocity._cache_size(), _shared._cache_size()) == before
