"""Autoencoders in tiles give the untiled result, and compile for the tile alone."""

import errno

import numpy as np
import pytest
from flax import nnx

from tests.restoration import autoencoders
from vosr_jax.errors import UserError
from vosr_jax.models import autoencoders as plain
from vosr_jax.restoration.tiled import autoencoder as tiled_autoencoder
from vosr_jax.restoration.tiled import feature_store as maps
from vosr_jax.restoration.tiled import streaming
from vosr_jax.restoration.tiled.autoencoder import decode_tiled, encode_tiled
from vosr_jax.restoration.tiled.streaming import Statistics

_KINDS = {
    "light decoder": autoencoders.stable_diffusion,
    "full decoder": autoencoders.full_decoder,
    "no attention": autoencoders.without_attention,
    "qwen": autoencoders.qwen,
}
_TILE = 48

# The untiled networks, compiled at once instead of operation by operation.
encode = nnx.jit(plain.encode)
decode = nnx.jit(plain.decode)


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


def test_no_seam_is_in_what_tiles_change():
    autoencoder = autoencoders.stable_diffusion()
    latent = np.asarray(encode(autoencoder, autoencoders.half_dark_picture(144, 208)))
    # Tiles come clipped.
    whole = np.clip(np.asarray(decode(autoencoder, latent)), -1, 1)
    tiled = decode_tiled(autoencoder, latent, _TILE)
    assert _seam_energy(tiled) == pytest.approx(_seam_energy(whole), rel=1e-3)
    # Tiles decoded alone have seams that this figure shows.
    cells = _TILE // autoencoder.downscale
    alone = np.concatenate(
        [
            decode(autoencoder, latent[:, :, i : i + cells])
            for i in range(0, latent.shape[2], cells)
        ],
        axis=2,
    )
    assert _seam_energy(np.clip(alone, -1, 1)) > 1.1 * _seam_energy(whole)


def _seam_energy(picture) -> float:
    """Squared horizontal differences across multiples of the tile over those elsewhere."""
    energy = np.square(np.diff(picture, axis=2)).mean((0, 1, 3))
    across = np.arange(1, len(energy) + 1) % _TILE == 0
    return float(energy[across].mean() / energy[~across].mean())


def test_pictures_of_a_batch_are_each_their_own(autoencoder):
    picture = autoencoders.half_dark_picture(64, 96)
    both = np.concatenate([picture, 0.5 * picture[:, ::-1]])
    latent = np.asarray(encode(autoencoder, both))
    np.testing.assert_allclose(encode_tiled(autoencoder, both, None, _TILE), latent, atol=1e-4)
    whole = np.asarray(decode(autoencoder, latent))
    assert _grey_levels(decode_tiled(autoencoder, latent, _TILE), whole).max() < 0.05


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
    programs = streaming._compute, streaming._absorb
    compiled = [program._cache_size() for program in programs]
    decode_tiled(autoencoder, np.zeros((1, 20, 90, 4), np.float32), _TILE)
    decode_tiled(autoencoder, np.zeros((1, 15, 77, 4), np.float32), _TILE)
    assert [program._cache_size() for program in programs] == compiled


def test_a_tile_with_too_many_channels_is_halved():
    area = 64**2 * 8
    assert [streaming.tile_side(64, area, channels) for channels in (8, 16, 32)] == [64, 32, 32]
    assert streaming.tile_side(60, area, 8) == 56 and streaming.tile_side(8, area, 8) == 16


@pytest.mark.parametrize("run", (encode_tiled, decode_tiled))
def test_no_stage_computes_a_pixel_twice_if_tiles_divide_the_picture(run, monkeypatch):
    autoencoder = autoencoders.stable_diffusion()
    real, seen = streaming.run_stage, []

    def counting(stage, module, source, target, side, **others):
        rows, columns = (-(-length // side) for length in source.shape[:2])
        seen.append(rows * columns * side**2 / (source.shape[0] * source.shape[1]))
        return real(stage, module, source, target, side, **others)

    monkeypatch.setattr(tiled_autoencoder, "run_stage", counting)
    # The smallest tile is of 16 px, also at the latent's resolution.
    scale = autoencoder.downscale
    if run is encode_tiled:
        run(autoencoder, np.zeros((1, 32 * scale, 48 * scale, 3), np.float32), None, 16 * scale)
    else:
        run(autoencoder, np.zeros((1, 32, 48, 4), np.float32), 16 * scale)
    assert len(seen) > 10 and set(seen) == {1.0}


def test_maps_that_do_not_fit_go_to_a_file_that_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(maps.tempfile, "tempdir", str(tmp_path))
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
    monkeypatch.setattr(maps.tempfile, "tempdir", str(tmp_path))

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(tiled_autoencoder, "streamed_attention", fail)
    with pytest.raises(MemoryError):
        decode_tiled(autoencoders.stable_diffusion(), np.zeros((1, 20, 24, 4)), _TILE, 0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(maps.tempfile, "tempdir", str(tmp_path))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(maps.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=rf"{tmp_path} has no room .* TMPDIR"):
        decode_tiled(autoencoders.stable_diffusion(), np.zeros((1, 20, 24, 4)), _TILE, 0)
    assert not list(tmp_path.iterdir())


def test_a_mapped_picture_of_the_caller_is_left_alone(tmp_path):
    autoencoder = autoencoders.stable_diffusion()
    picture = autoencoders.half_dark_picture(64, 96)
    np.save(tmp_path / "picture.npy", picture)
    mapped = np.load(tmp_path / "picture.npy", mmap_mode="r")
    encode_tiled(autoencoder, mapped, None, _TILE)
    np.testing.assert_array_equal(np.load(tmp_path / "picture.npy"), picture)


@pytest.mark.slow
def test_the_released_widths_in_tiles_give_the_untiled_picture():
    autoencoder = autoencoders.released_light()
    picture = autoencoders.half_dark_picture(192, 256)
    latent = np.asarray(encode(autoencoder, picture))
    tiled = encode_tiled(autoencoder, picture, None, 128)
    assert np.abs(tiled - latent).max() < 1e-3 * np.abs(latent).max()
    off = _grey_levels(decode_tiled(autoencoder, latent, 128), decode(autoencoder, latent))
    assert (off <= 2).mean() >= 0.999
    assert off.max() < 0.5
