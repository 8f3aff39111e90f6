"""What Python code hands to the upscaler is taken as what it plainly is, or refused by name."""

import io
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax.errors import UserError
from vosr_jax.files.photo_writing import write_photo
from vosr_jax.restoration.inputs import as_photo
from vosr_jax.restoration.upscaler import Upscaler

_PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(tiny_model())


class _Tensor:
    """As PyTorch's: no array until it is detached and on the host."""

    def __init__(self, values, *, ready=False):
        self._values, self._ready = values, ready

    def detach(self):
        return self

    def cpu(self):
        return _Tensor(self._values, ready=True)

    def __array__(self, dtype=None, copy=None):
        if not self._ready:
            raise RuntimeError("can't convert a tensor that needs its gradient")
        return self._values


def test_files_bytes_arrays_and_tensors_are_the_same_photo(tmp_path):
    Image.fromarray(_PIXELS).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    same = [
        *(str(tmp_path / "a.png"), tmp_path / "a.png", types.SimpleNamespace(read=lambda: content)),
        *(content, bytearray(content), memoryview(content), io.BytesIO(content)),
        *(
            _PIXELS,
            jnp.asarray(_PIXELS),
            _Tensor(_PIXELS),
            _PIXELS / 255,
            _PIXELS / np.float32(255),
        ),
        *(Image.fromarray(_PIXELS), as_photo(_PIXELS), np.asfortranarray(_PIXELS)),
    ]
    for image in same:
        np.testing.assert_array_equal(as_photo(image).pixels, _PIXELS, str(type(image)))
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(as_photo(file).pixels, _PIXELS)


def test_arrays_of_one_to_four_channels_are_grey_or_coloured_with_and_without_alpha():
    both = np.dstack([_PIXELS, _PIXELS[..., 0] | 1])
    for values, grey, clear in (
        *((_PIXELS[..., 0], True, False), (_PIXELS[..., :1], True, False)),
        *((both[..., 2:], True, True), (both, False, True)),
    ):
        photo = as_photo(values)
        assert photo.grey == grey and (photo.alpha is not None) == clear
    deep = as_photo(_PIXELS.astype(np.uint16) * 257)
    assert deep.bits == 16
    np.testing.assert_array_equal(deep.rgb, _PIXELS)


@pytest.mark.parametrize(
    "image, said",
    [
        (None, "NoneType is no picture"),
        (3, "int is no picture"),
        ([[1, 2], [3, 4]], "list is no picture"),
        (_PIXELS.astype(np.float32), "must lie in \\[0, 1\\]"),
        (_PIXELS / 255 - 0.5, "must lie in \\[0, 1\\], not -0.5"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinity"),
        (_PIXELS.astype(np.int64), "int64"),
        (_PIXELS > 3, "bool"),
        (np.moveaxis(_PIXELS, -1, 0), "move the channels to the end"),
        (_PIXELS[None], "move the channels to the end"),
        (np.zeros((0, 4, 3), np.uint8), "not \\[0, 4, 3\\]"),
        (np.zeros(4, np.uint8), "not \\[4\\]"),
        (np.array(None), "an array must be"),
        (b"", "empty"),
        (b"no picture", "the picture is no picture"),
        (io.StringIO("text"), "opened for bytes"),
        ("absent.png", "absent.png does not exist"),
        ("a\0b.png", "cannot be read"),
        (Path("."), "is a folder"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(image, said):
    with pytest.raises(UserError, match=said):
        as_photo(image)


def test_a_file_that_pillow_has_opened_and_not_decoded_is_read_here(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(_PIXELS).convert("RGBA")
    image.save(tmp_path / "turned.tif", exif=exif)
    with Image.open(tmp_path / "turned.tif") as opened:
        np.testing.assert_array_equal(as_photo(opened).pixels, np.rot90(_PIXELS, -1))
    deep = as_photo(_PIXELS.astype(np.uint16) * 256 + 7)
    write_photo(deep, tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        np.testing.assert_array_equal(as_photo(opened).pixels, deep.pixels)
    with Image.open(tmp_path / "deep.png") as opened:
        opened.load()
        assert as_photo(opened).bits == 8
    large = Image.fromarray(_PIXELS).resize((64, 64))
    large.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened:
        opened.draft("RGB", (16, 16))
        assert as_photo(opened).size == opened.size == (16, 16)


@pytest.mark.parametrize("mode, kind", [("La", "LA"), ("RGBa", "RGBA")])
def test_premultiplied_modes_are_divided_again(mode, kind):
    image = Image.fromarray(_PIXELS).convert(kind[:-1])
    image.putalpha(128)
    photo = as_photo(image.convert(mode))
    expected = as_photo(image)
    assert np.abs(photo.pixels.astype(int) - expected.pixels).max() <= 2
    assert (photo.alpha == 128).all() and photo.grey == (mode == "La")


@pytest.mark.parametrize(
    "setting, said",
    [
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**32}, "seed must be from 0"),
        ({"seed": True}, "seed"),
        ({"scale": "2"}, "scale must be a number from 1 to 8, not '2'"),
        ({"scale": None}, "scale"),
        ({"strength": "1"}, "strength must be a number from 0 to 2, not '1'"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": True}, "scale"),
        ({"tile_size": 64.5}, "tile_size must be auto"),
        ({"tile_size": None}, "tile_size must be auto"),
        ({"tile_overlap": "8"}, "tile_overlap"),
        ({"vae_tile_size": "64"}, "vae_tile_size"),
        ({"tile_size": 64, "tile_overlap": 63}, "tile_overlap 63 leaves .* choose at most 56"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(upscaler, setting, said):
    with pytest.raises(UserError, match=said):
        upscaler(_PIXELS, **setting)
    if "seed" not in setting:
        with pytest.raises(UserError, match=said):
            upscaler.check(**setting)


def test_numpys_numbers_are_numbers(upscaler):
    plain = upscaler(_PIXELS, scale=2, tile_size=32, tile_overlap=8, seed=3)
    numpys = upscaler(
        _PIXELS,
        scale=np.float64(2),
        tile_size=np.int64(32),
        tile_overlap=np.int32(8),
        vae_tile_size=None,
        seed=np.uint32(3),
    )
    np.testing.assert_array_equal(plain, numpys)
    with pytest.raises(UserError, match="between 1 and 8"):
        upscaler(_PIXELS, scale=np.float32(9))


def test_torch_is_not_needed():
    assert "torch" not in sys.modules
