"""The upscaler: any size and kind of picture, settings that take effect, seeds that stay."""

import concurrent.futures
import dataclasses
import io

import cv2
import jax
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.restoration import autoencoders
from tests.restoration.models import tiny_model
from tests.restoration.profiles import display_p3_profile
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.errors import UserError
from vosr_jax.files.photo_writing import write_photo
from vosr_jax.restoration import denoiser_programs, denoising, restore
from vosr_jax.restoration.presets import PRESETS
from vosr_jax.restoration.tiled import streaming
from vosr_jax.restoration.upscaler import Upscaler


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(tiny_model())


def _picture(height=11, width=15, seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.mark.parametrize("size, scale", [((11, 15), 4), ((1, 1), 3), ((9, 16), 1.7), ((8, 8), 1)])
def test_every_side_becomes_the_rounded_product(upscaler, size, scale):
    result = upscaler(_picture(*size), scale=scale)
    assert result.size == (round(size[1] * scale), round(size[0] * scale))


@pytest.mark.parametrize("tile_size", [0, 32])
def test_a_model_that_predicts_no_change_returns_the_enlarged_picture(tile_size):
    model = tiny_model()
    kernel = model.denoiser.final.linear.kernel
    kernel[...] = 0 * kernel[...]
    ours = Upscaler(model)(_picture(), scale=3.3, tile_size=tile_size)
    enlarged = _picture().resize(ours.size, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(ours, enlarged)


def test_the_same_seed_gives_the_same_picture_and_another_does_not(upscaler):
    first, again, other = (np.asarray(upscaler(_picture(), seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).max() > 2


def test_guidance_steps_and_weak_strength_all_take_effect(upscaler):
    plain = upscaler(_picture(), output="numpy")
    for setting in ({"steps": 3}, {"guidance_scale": -1.0}, {"weak_strength": 0.9}):
        assert np.abs(upscaler(_picture(), output="numpy", **setting) - plain).max() > 1e-4
    same = upscaler(_picture(), output="numpy", steps=2, guidance_scale=0.5, weak_strength=0.15)
    np.testing.assert_array_equal(same, plain)


def test_noise_can_be_handed_in(upscaler):
    size = (44, 60)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (1, 22, 30, 12))
    given = upscaler(_picture(11, 15), noise=np.transpose(noise, (0, 3, 1, 2)))
    assert given.size == size[::-1]
    np.testing.assert_array_equal(given, upscaler(_picture(11, 15), seed=0))
    with pytest.raises(UserError, match=r"\[1, 12, 22, 30\]"):
        upscaler(_picture(11, 15), noise=np.zeros((1, 12, 3, 3)))


def test_tiles_cover_the_picture_and_one_tile_changes_nothing(upscaler):
    whole = upscaler(_picture(20, 30), output="numpy", tile_size=0)
    one = upscaler(_picture(20, 30), output="numpy", tile_size=512)
    np.testing.assert_allclose(one, whole, atol=1e-6)
    tiled = upscaler(_picture(20, 30), output="numpy", tile_size=32, tile_overlap=8)
    assert tiled.shape == whole.shape and np.isfinite(tiled).all()
    assert 0 < np.abs(tiled - whole).mean() < 0.1


def test_a_thin_strip_needs_few_tiles(upscaler):
    shares: list[float] = []
    result = upscaler(_picture(2, 200), tile_size=64, tile_overlap=16, progress=shares.append)
    assert result.size == (800, 8) and len(shares) < 2 * 60


def test_progress_ends_at_one(upscaler):
    shares: list[float] = []
    upscaler(_picture(20, 30), tile_size=32, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 4


def test_the_pictures_kind_is_kept(upscaler, tmp_path):
    grey = upscaler(_picture().convert("L"), output="pil")
    assert grey.mode == "L"
    assert upscaler(_picture().convert("L"), output="numpy").shape == (44, 60, 1)
    clear = _picture()
    clear.putalpha(100)
    assert upscaler(clear).getchannel("A").getextrema() == (100, 100)
    assert upscaler(clear, output="numpy").shape == (44, 60, 4)


@pytest.fixture(scope="module")
def unchanging() -> Upscaler:
    """A model that predicts no change."""
    model = tiny_model()
    kernel = model.denoiser.final.linear.kernel
    kernel[...] = 0 * kernel[...]
    return Upscaler(model)


def test_a_wide_gamut_picture_looks_the_same_afterwards(unchanging, tmp_path):
    source = Image.new("RGB", (8, 8), (250, 30, 60))
    source.save(tmp_path / "p3.png", icc_profile=display_p3_profile())
    result = unchanging(tmp_path / "p3.png", scale=2)
    write_photo(result, tmp_path / "result.png")
    seen = [_as_srgb(Image.open(tmp_path / name)) for name in ("p3.png", "result.png")]
    np.testing.assert_allclose(seen[1][4, 4], seen[0][4, 4], atol=1)
    assert np.abs(seen[0][4, 4].astype(int) - (250, 30, 60)).max() > 4


def _as_srgb(image: Image.Image) -> np.ndarray:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    srgb = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB"))


def test_transparency_is_restored_in_place_and_flat_where_it_was(upscaler):
    rows, columns = np.mgrid[:24, :24]
    inside = (rows - 12) ** 2 + (columns - 10) ** 2 < 36
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[inside] = 220, 40, 40, 255
    result = upscaler(Image.fromarray(pixels), scale=4, colour_fix="wavelet")
    alpha = np.asarray(result.getchannel("A"), float)
    deep = np.kron(_shrunk(inside, 3), np.ones((4, 4))) > 0
    far = np.kron(_shrunk(~inside, 3), np.ones((4, 4))) > 0
    assert (alpha[deep] == 255).all() and (alpha[far] == 0).all()
    assert ((alpha > 0) & (alpha < 255)).any()
    centre = [(axis * alpha).sum() / alpha.sum() for axis in np.mgrid[:96, :96]]
    np.testing.assert_allclose(centre, [12 * 4 + 1.5, 10 * 4 + 1.5], atol=1.5)
    # Nothing of the black that nobody saw.
    assert np.asarray(result)[alpha > 0][:, 0].mean() > 180
    shares: list[float] = []
    upscaler(Image.fromarray(pixels), progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0


def _shrunk(mask, by):
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * by + 1,) * 2))


def test_schedule_and_interval_take_effect(upscaler):
    plain = upscaler(_picture(), output="numpy", steps=3)
    for setting in ({"schedule": "cosine"}, {"guidance_interval": (0.0, 0.5)}):
        other = upscaler(_picture(), output="numpy", steps=3, **setting)
        assert np.abs(other - plain).max() > 1e-4
    off = upscaler(_picture(), output="numpy", steps=3, guidance_interval=(0.0, 0.0))
    full = upscaler(_picture(), output="numpy", steps=3, guidance_scale=1)
    np.testing.assert_allclose(off, full, atol=1e-5)


def test_presets_lean_from_the_picture_to_invention(upscaler):
    scales = [upscaler.preset(name)["guidance_scale"] for name in PRESETS]
    # The residual's branch that sees dimly leaves the input as it is; that of latents invents.
    residual = upscaler.model.parameterization.endpoint == "residual"
    assert scales == sorted(scales, reverse=not residual) and len(set(scales)) == 3
    with pytest.raises(UserError, match="faithful"):
        upscaler.preset("vivid")


@pytest.mark.parametrize(
    "kind",
    [{"sampler": SamplerSettings(steps=1, r_input=True)}, {"guided": False}],
)
def test_a_model_that_cannot_be_guided_has_its_strength_preset(kind):
    model = Upscaler(tiny_model(**kind))
    strengths = [model.preset(name) for name in PRESETS]
    assert [list(settings) for settings in strengths] == [["strength"]] * 3
    values = [settings["strength"] for settings in strengths]
    assert values == sorted(values) and values[1] == 1
    with pytest.raises(UserError, match="give a strength"):
        model.check(guidance_scale=0.5)
    with pytest.raises(UserError, match="strength must be between 0 and 2, not 2.5"):
        model.check(strength=2.5)


def test_strength_is_the_share_of_the_models_change(upscaler):
    given = {"output": "numpy", "steps": 2, "colour_fix": "none"}
    none, half, whole = (
        upscaler(_picture(), strength=strength, **given) for strength in (0.0, 0.5, 1.0)
    )
    size = 4 * _picture().width, 4 * _picture().height
    enlarged = np.asarray(_picture().resize(size, Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(none, enlarged, atol=1 / 255)
    inside = (whole > 0) & (whole < 1)
    assert np.abs(whole - none).max() > 0.01
    np.testing.assert_allclose(half[inside], ((none + whole) / 2)[inside], atol=1e-2)


@pytest.fixture
def compilations():
    """A list that grows by one for every program that is compiled."""
    counted: list[str] = []

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield counted
    jax.monitoring.unregister_event_duration_listener(listen)


# Smaller than half a tile, than a tile, narrower than one, and of several.
_SIZES = [(9, 9), (12, 20), (30, 31), (33, 8), (13, 40), (35, 41), (50, 64), (37, 33)]


@pytest.mark.parametrize("kind", ["pixels", "convolutions"])
def test_pictures_of_all_sizes_share_their_programs_and_exact_ones_are_the_same(kind):
    coder = {} if kind == "pixels" else {"autoencoder": autoencoders.stable_diffusion()}
    upscaler = Upscaler(tiny_model(**coder))
    given = {"scale": 2, "tile_size": 64, "tile_overlap": 16, "output": "numpy"}
    programs = denoiser_programs._velocity, streaming._compute, streaming._absorb

    def compiled() -> list[int]:
        return [program._cache_size() for program in programs]

    made = []
    for number, size in enumerate(_SIZES):
        made.append(upscaler(_picture(*size), **given))
        if number == 0:
            first = compiled()
    denoiser, *autoencoder = (new - old for new, old in zip(compiled(), first, strict=True))
    # A tile and half of it.
    assert denoiser <= 1
    assert autoencoder == [0, 0]
    for size, ours in list(zip(_SIZES, made, strict=True))[1:5]:
        exact = upscaler(_picture(*size), **given, shapes="exact")
        np.testing.assert_allclose(ours, exact, atol=2e-4)


def test_a_batch_gives_the_pixels_of_one_call_each(monkeypatch):
    upscaler = Upscaler(tiny_model())
    given = {"scale": 2, "tile_size": 64, "tile_overlap": 16}
    pictures = [_picture(*size, seed=i) for i, size in enumerate(_SIZES[:6])]
    seeds = list(range(len(pictures)))
    shares: list[float] = []
    together = upscaler.restore_batch(pictures, seeds=seeds, progress=shares.append, **given)
    assert shares == sorted(shares) and shares[-1] == 1
    for picture, seed, ours in zip(pictures, seeds, together, strict=True):
        alone = upscaler(picture, seed=seed, **given)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(alone))
    # As on an accelerator: several tiles a call, and the last call filled up.
    monkeypatch.setattr(restore, "tile_batch", lambda: 4)
    four = upscaler.restore_batch(pictures, seeds=seeds, **given)
    for ours, more in zip(together, four, strict=True):
        difference = np.abs(np.asarray(ours, int) - np.asarray(more, int))
        assert difference.max() <= 1
    # And the next call begun before the last one is blended in.
    monkeypatch.setattr(denoising, "_calls_ahead", lambda: 1)
    shares.clear()
    ahead = upscaler.restore_batch(pictures, seeds=seeds, progress=shares.append, **given)
    assert shares == sorted(shares) and shares[-1] == 1
    for ours, more in zip(four, ahead, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(more))
    assert upscaler.restore_batch([]) == []
    with pytest.raises(UserError, match="2 seeds were given for 6"):
        upscaler.restore_batch(pictures, seeds=[1, 2])
    with pytest.raises(TypeError, match="noise"):
        upscaler.restore_batch(pictures, noise=None)


def test_a_large_picture_runs_the_program_of_one_with_few_tiles(compilations):
    upscaler = Upscaler(tiny_model())
    options = {"tile_size": 32, "tile_overlap": 8}
    upscaler(_picture(9, 17), **options)
    network = denoiser_programs._velocity._cache_size()
    upscaler(_picture(50, 75), **options)
    assert denoiser_programs._velocity._cache_size() == network
    many = len(compilations)
    upscaler(_picture(50, 75, seed=1), seed=5, guidance_scale=0.25, **options)
    assert len(compilations) == many


def test_threads_share_an_upscaler():
    upscaler = Upscaler(tiny_model())
    given = {"scale": 2, "tile_size": 64, "tile_overlap": 16}
    pictures = [_picture(20, 24), _picture(40, 37)]
    alone = [np.asarray(upscaler(picture, **given)) for picture in pictures]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda i: np.asarray(upscaler(pictures[i % 2], **given)), range(40))
        for number, ours in enumerate(made):
            np.testing.assert_array_equal(ours, alone[number % 2])


@pytest.mark.parametrize(("width", "tile_size", "calls"), [(30_000, 64, 1250), (3_000, 512, 50)])
def test_a_long_strip_takes_few_calls(upscaler, width, tile_size, calls):
    strip, shares = Image.new("RGB", (width, 10), (90, 120, 60)), []
    given = {"tile_size": tile_size, "tile_overlap": 16, "progress": shares.append}
    result = upscaler(strip, scale=1, steps=1, guidance_scale=1, **given)
    # Steps of half a strip's height, the least that tiles of its height are computed at.
    assert result.size == (width, 10) and len(shares) <= 1.6 * calls


def test_files_and_arrays_are_taken_like_pictures(upscaler, tmp_path):
    expected = upscaler(_picture())
    _picture().save(tmp_path / "a.png")
    np.testing.assert_array_equal(upscaler(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(upscaler(np.asarray(_picture())), expected)
    np.testing.assert_array_equal(upscaler(np.asarray(_picture()) / 255.0), expected)


def test_colour_fixes_pull_towards_the_source(upscaler):
    source = np.asarray(_picture().resize((60, 44), Image.Resampling.BICUBIC)) / 255
    fixed = upscaler(_picture(), colour_fix="adain", output="numpy")
    np.testing.assert_allclose(fixed.mean((0, 1)), source.mean((0, 1)), atol=2e-2)
    assert np.abs(fixed - upscaler(_picture(), output="numpy")).max() > 1e-3


def test_a_one_step_model_refuses_guidance():
    upscaler = Upscaler(tiny_model(sampler=SamplerSettings(steps=1, r_input=True)))
    assert upscaler(_picture(), steps=2).size == (60, 44)
    with pytest.raises(UserError, match="one-step"):
        upscaler(_picture(), guidance_scale=0.5)


@pytest.mark.parametrize(
    "setting",
    [
        {"scale": 0.5},
        {"scale": 9},
        {"steps": 0},
        {"tile_size": -1},
        {"colour_fix": "lab"},
        {"output": "tensor"},
        {"vae_tile_size": -1},
        {"tile_size": "huge"},
        {"tile_overlap": -1},
        {"schedule": "square"},
        {"guidance_interval": (0.5, 0.2)},
        {"weak_strength": 2.0},
        {"shapes": "round"},
    ],
)
def test_settings_that_cannot_be_used_are_named(upscaler, setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        upscaler(_picture(), **setting)


def test_official_models_cut_to_eight_bits():
    model = tiny_model()
    rounded = np.asarray(Upscaler(model)(_picture()), int)
    cut = np.asarray(Upscaler(dataclasses.replace(model, truncate=True))(_picture()), int)
    assert ((rounded - cut >= 0) & (rounded - cut <= 1)).all() and (rounded != cut).any()
