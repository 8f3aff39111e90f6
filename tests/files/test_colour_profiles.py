"""Colours that a file states by numbers, without a profile, are the same in the result."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.files.png_chunks import chunk, make_png
from vosr_jax.errors import UserError
from vosr_jax.files import colour_profiles
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import write_photo

_P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
_COLOURS = np.array([[[250, 30, 60], [20, 200, 90], [128, 128, 128], [40, 60, 220]]])


def _gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 1e5)))


def _corners(values) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in values)))


def _light(values: np.ndarray, gamma: float | None) -> np.ndarray:
    """Linear light of encoded values; None for sRGB's curve."""
    values = values / 255
    if gamma is not None:
        return values ** (1 / gamma)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _matrix(primaries) -> np.ndarray:
    white, *corners = (
        np.array([x, y, 1 - x - y]) / y
        for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    columns = np.stack(corners, axis=1)
    return columns * np.linalg.solve(columns, white)


def _in_srgb(values, primaries, gamma) -> np.ndarray:
    """What colorimetry says, 0 to 255."""
    light = _light(values, gamma) @ _matrix(primaries).T
    light = light @ np.linalg.inv(_matrix(colour_profiles.SRGB_PRIMARIES)).T
    light = np.clip(light, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return encoded * 255


def _seen(path) -> np.ndarray:
    """A file as a program that honours profiles shows it."""
    image = Image.open(path)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    srgb = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB"), float)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize(
    "chunks, primaries, gamma",
    [
        ((chunk(b"cICP", bytes((12, 13, 0, 1))),), _P3, None),
        ((_gamma(0.45455), _corners(_P3)), _P3, None),
        ((_gamma(1.0),), colour_profiles.SRGB_PRIMARIES, 1.0),
        ((_gamma(1 / 1.8), _corners(_P3)), _P3, 1 / 1.8),
    ],
)
def test_stated_colours_look_the_same_in_the_result(tmp_path, ending, chunks, primaries, gamma):
    photo = read_photo(make_png(_COLOURS.repeat(8, 0).repeat(8, 1), 8, 2, *chunks))
    write_photo(photo, tmp_path / f"a.{ending}")
    expected = _in_srgb(_COLOURS[0], primaries, gamma)
    assert np.abs(expected - _COLOURS[0]).max() > 5
    tolerance = 12 if ending == "webp" else 2
    np.testing.assert_allclose(_seen(tmp_path / f"a.{ending}")[4, 4::8], expected, atol=tolerance)


def test_a_greys_gamma_becomes_a_grey_profile(tmp_path):
    photo = read_photo(make_png(np.full((4, 4, 1), 100), 8, 0, _gamma(1.0)))
    write_photo(photo, tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "L" and image.info["icc_profile"][16:20] == b"GRAY"
    expected = _in_srgb(np.full(3, 100), colour_profiles.SRGB_PRIMARIES, 1.0)
    np.testing.assert_allclose(_seen(tmp_path / "a.png")[2, 2], expected, atol=2)
    write_photo(photo, tmp_path / "a.webp")
    shown = np.asarray(Image.open(tmp_path / "a.webp"), float)[2, 2]
    np.testing.assert_allclose(shown, expected, atol=4)


@pytest.mark.parametrize(
    "chunks",
    [
        (_gamma(0.45455),),
        (_gamma(0.45455), _corners(colour_profiles.SRGB_PRIMARIES)),
        (chunk(b"sRGB", b"\0"), _gamma(1.0)),
        (chunk(b"cICP", bytes((1, 13, 0, 1))), _gamma(1.0)),
        (_gamma(0),),
        (_corners((0,) * 8),),
        (_corners((1, 1, 0, 0, 0, 0, 0, 0)),),
        (chunk(b"gAMA", b"1"), chunk(b"cHRM", b"2"), chunk(b"cICP", b"3")),
    ],
)
def test_srgb_and_nonsense_need_no_profile(chunks):
    assert read_photo(make_png(_COLOURS, 8, 2, *chunks)).icc_profile is None


@pytest.mark.parametrize(
    "points, said", [((9, 16, 0, 1), "PQ"), ((9, 18, 0, 1), "HLG"), ((99, 13, 0, 1), "primaries")]
)
def test_colours_that_are_not_understood_are_refused(points, said):
    with pytest.raises(UserError, match=said):
        read_photo(make_png(_COLOURS, 8, 2, chunk(b"cICP", bytes(points))))


def test_an_embedded_profile_wins_over_numbers():
    own = colour_profiles.adobe_rgb()
    embedded = chunk(b"iCCP", b"x\0\0" + zlib.compress(own))
    assert read_photo(make_png(_COLOURS, 8, 2, _gamma(1.0), embedded)).icc_profile == own


def test_a_camera_that_marks_adobe_rgb_gets_its_profile(tmp_path):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    Image.new("RGB", (8, 8), (200, 30, 60)).save(tmp_path / "a.jpg", exif=exif)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.icc_profile == colour_profiles.adobe_rgb()


def test_an_avif_in_display_p3_gets_its_profile(tmp_path):
    Image.new("RGB", (16, 16), (200, 30, 60)).save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    at = data.index(b"colrnclx") + 8
    marked = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert read_photo(data).icc_profile is None
    assert read_photo(marked).icc_profile is not None
