"""A preview shows finished tiles in the enlarged picture and changes nothing of the result."""

from types import SimpleNamespace

import numpy as np
import pytest

from vosr_jax import Upscaler
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.restoration import restore as module
from vosr_jax.restoration.restore import Preview

_SIDE = 4


class Clock:
    """Time that goes on when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _preview(clock, shown, decode_seconds=0.0):
    """Of a black picture of 14 x 16 pixels in a latent of 4 x 4, whose decoder repeats values."""

    def decode(latent, tile_size):
        clock.now += decode_seconds
        return latent[..., :1].repeat(3, -1).repeat(_SIDE, 1).repeat(_SIDE, 2) * 2 - 1

    model = SimpleNamespace(
        decode=decode,
        parameterization=Parameterization(),
        autoencoder=SimpleNamespace(downscale=_SIDE),
    )
    lq, latent = np.zeros((14, 16, 3), np.float32), np.zeros((1, 4, 4, 1), np.float32)
    return Preview(model, lq, latent, 0, shown.append, clock)


def _tile(row, column, value=1.0):
    place = slice(row, row + 2), slice(column, column + 2)
    return place, np.full((1, 2, 2, 1), value, np.float32)


def test_finished_tiles_replace_what_they_cover():
    clock, shown = Clock(), []
    preview = _preview(clock, shown)
    preview(*_tile(0, 0))
    assert not shown
    clock.now = 1.0
    preview(*_tile(2, 2, 0.4))
    (picture,) = shown
    assert picture.shape == (14, 16, 3) and picture.dtype == np.uint8
    assert (picture[:8, :8] == 255).all() and (picture[8:, 8:] == 102).all()
    assert not picture[:8, 8:].any() and not picture[8:, :8].any()


def test_a_later_step_replaces_a_tile_that_waits():
    clock, shown = Clock(), []
    preview = _preview(clock, shown)
    preview(*_tile(0, 0, 1.0))
    clock.now = 1.0
    preview(*_tile(0, 0, 0.2))
    assert (shown[0][:8, :8] == 51).all()


def test_previews_take_a_tenth_of_the_time():
    clock, shown = Clock(), []
    preview = _preview(clock, shown, decode_seconds=2.0)
    decoding = 0.0
    for _ in range(1000):
        clock.now += 0.1
        before = clock.now
        preview(*_tile(0, 0))
        decoding += clock.now - before
    assert 3 <= len(shown) and decoding <= 0.12 * clock.now


def test_what_is_not_finite_is_left_out():
    clock, shown = Clock(), []
    preview = _preview(clock, shown)
    clock.now = 1.0
    preview(*_tile(0, 0, np.nan))
    assert not shown[0].any()


@pytest.mark.parametrize("name", ["nano", "nano-onestep"])
def test_the_last_preview_is_near_the_result_and_changes_nothing(name, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 1e-9)
    monkeypatch.setattr(module, "_SHARE", 1e12)
    upscaler = Upscaler.from_pretrained(name)
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    smooth = np.linspace(0, 255, 40 * 40 * 3).reshape(40, 40, 3).astype(np.uint8)
    settings = {"scale": 4, "tile_size": 128, "colour_fix": "none"}
    shown: dict[int, list[np.ndarray]] = {0: [], 1: []}
    made = upscaler.restore_batch(
        [photo, smooth], preview=lambda index, picture: shown[index].append(picture), **settings
    )
    plain = upscaler.restore_batch([photo, smooth], **settings)
    for index, (one, other) in enumerate(zip(made, plain, strict=True)):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        last, first = shown[index][-1].astype(float), shown[index][0].astype(float)
        assert last.shape == np.asarray(one).shape
        apart = [np.abs(picture - np.asarray(one)).mean() for picture in (first, last)]
        assert apart[1] < 1.5 and apart[1] < apart[0]
