"""Autoencoders in tiles give the untiled result, and compile for the tile alone."""

import numpy as np
import pytest

from tests.restoration import autoencoders
from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.restoration import streaming, tiled_autoencoder
from vosr_jax.restoration.streaming import Statistics
from vosr_jax.restoration.tiled_autoencoder import decode_tiled, encode_tiled

_KINDS = {"stable diffusion": autoencoders.stable_diffusion, "qwen": autoencoders.qwen}
_TILE = 48


@pytest.fixture(scope="module", params=_KINDS)
def autoencoder(request):
    return _KINDS[request.param]()


def _noise(autoencoder, picture):
    sides = (side // autoencoder.downscale for side in picture.shape[1:3])
    shape = (1, *sides, autoencoder.latent_channels)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _grey_levels(a, b) -> np.ndarray:
    return np.abs(np.clip(a, -1, 1) - np.clip(b, -1, 1)) * 127.5


# Wide, shorter than a tile, and no multiple of it; all larger than a tile somewhere.
@pytest.mark.parametrize("size", [(120, 208), (16, 304), (200, 56)])
def test_tiles_give_the_untiled_latent_and_picture(autoencoder, size):
    picture = autoencoders.half_dark_picture(*size)
    noise = _noise(autoencoder, picture)
    latent = np.asarray(encode(autoencoder, picture, noise))
    tiled = encode_tiled(autoencoder, picture, noise, _TILE)
    assert np.abs(tiled - latent).max() < 1e-4 * np.abs(latent).max()
    whole = np.asarray(decode(autoencoder, latent))
    # Far inside the two grey levels on 99.9% of the pixels that large pictures must keep to.
    assert _grey_levels(decode_tiled(autoencoder, latent, _TILE), whole).max() < 0.05
    assert whole.std() > 0.1


def test_the_mode_needs_no_noise(autoencoder):
    picture = autoencoders.half_dark_picture(64, 96)
    expected = np.asarray(encode(autoencoder, picture, None))
    np.testing.assert_allclose(encode_tiled(autoencoder, picture, None, _TILE), expected, atol=1e-4)


def test_a_tiles_own_statistics_would_be_seen(monkeypatch):
    autoencoder = autoencoders.stable_diffusion()
    latent = np.asarray(encode(autoencoder, autoencoders.half_dark_picture(120, 208)))
    whole = np.asarray(decode(autoencoder, latent))
    finish = streaming._Merged.finish

    def last_tile_only(self) -> Statistics:
        self.count, self.mean, self.squares = self.last
        return finish(self)

    def forget(self, count, mean, squares) -> None:
        self.last = count, np.asarray(mean, np.float64), np.asarray(squares, np.float64)

    monkeypatch.setattr(streaming._Merged, "add", forget)
    monkeypatch.setattr(streaming._Merged, "finish", last_tile_only)
    off = _grey_levels(decode_tiled(autoencoder, latent, _TILE), whole)
    assert (off > 2).mean() > 0.01


def test_attention_that_sees_its_own_chunk_alone_would_be_seen(monkeypatch):
    autoencoder = autoencoders.stable_diffusion()
    latent = np.asarray(encode(autoencoder, autoencoders.half_dark_picture(120, 208)))
    whole = np.asarray(decode(autoencoder, latent))
    streamed = tiled_autoencoder.streamed_attention

    def by_halves(projected, out) -> None:
        middle = len(projected) // 2
        streamed(projected[:middle], out[:middle])
        streamed(projected[middle:], out[middle:])

    monkeypatch.setattr(tiled_autoencoder, "streamed_attention", by_halves)
    off = _grey_levels(decode_tiled(autoencoder, latent, _TILE), whole)
    assert (off > 2).mean() > 0.01


def test_a_second_picture_of_another_size_compiles_nothing():
    autoencoder = autoencoders.stable_diffusion()
    latent = np.zeros((1, 40, 50, 4), np.float32)
    decode_tiled(autoencoder, latent, _TILE)
    compiled = streaming._compute._cache_size()
    decode_tiled(autoencoder, np.zeros((1, 33, 90, 4), np.float32), _TILE)
    decode_tiled(autoencoder, np.zeros((1, 8, 77, 4), np.float32), _TILE)
    assert streaming._compute._cache_size() == compiled


def test_maps_that_do_not_fit_go_to_a_file_that_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming.tempfile, "tempdir", str(tmp_path))
    autoencoder = autoencoders.stable_diffusion()
    latent = np.random.default_rng(0).normal(size=(1, 20, 24, 4)).astype(np.float32)
    expected = decode_tiled(autoencoder, latent, _TILE)
    used = []
    monkeypatch.setattr(
        tiled_autoencoder,
        "run_stage",
        lambda *a, **k: (used.extend(tmp_path.glob("*/*")), streaming.run_stage(*a, **k))[1],
    )
    np.testing.assert_array_equal(decode_tiled(autoencoder, latent, _TILE, 0), expected)
    assert used and not list(tmp_path.iterdir())


def test_a_failure_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming.tempfile, "tempdir", str(tmp_path))

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(tiled_autoencoder, "streamed_attention", fail)
    with pytest.raises(MemoryError):
        decode_tiled(autoencoders.stable_diffusion(), np.zeros((1, 20, 24, 4)), _TILE, 0)
    assert not list(tmp_path.iterdir())
