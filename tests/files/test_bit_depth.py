"""What a file says of its bits is believed, or the file is refused by name."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.files.png_chunks import make_png
from vosr_jax.errors import UserError
from vosr_jax.files.photo import Photo, of_pillow
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import write_photo

_GREY = np.random.default_rng(0).integers(0, 65536, (6, 10)).astype(np.uint16)
_COLOURS = np.random.default_rng(1).integers(0, 65536, (6, 10, 3)).astype(np.uint16)


def _tiff(values, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def _tiff_12_bits(values: np.ndarray) -> bytes:
    height, width = values.shape
    high, low = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=-1)
    data = packed.astype(np.uint8).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def test_twelve_bits_are_scaled_to_sixteen():
    values = np.arange(0, 4096, 64).reshape(8, 8)
    photo = read_photo(_tiff_12_bits(values))
    assert photo.grey and photo.bits == 16
    np.testing.assert_allclose(photo.pixels[..., 0], values * (65535 / 4095), atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packing", [None, "zlib"])
def test_white_as_zero_is_turned_around_at_any_depth(order, packing):
    for values in (_GREY, (_GREY >> 8).astype(np.uint8)):
        options = {"compression": packing, "byteorder": order}
        photo = read_photo(_tiff(values, photometric="miniswhite", **options))
        np.testing.assert_array_equal(photo.pixels[..., 2], np.iinfo(values.dtype).max - values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packing", [None, "zlib"])
def test_sixteen_bits_of_a_tiff_are_all_read(order, packing):
    options = {"compression": packing, "byteorder": order}
    grey = read_photo(_tiff(_GREY, photometric="minisblack", **options))
    assert grey.grey and (grey.pixels == _GREY[..., None]).all()
    colours = read_photo(_tiff(_COLOURS, photometric="rgb", **options))
    np.testing.assert_array_equal(colours.pixels, _COLOURS)
    both = np.dstack([_COLOURS, _GREY | 1])
    clear = read_photo(_tiff(both, photometric="rgb", extrasamples=["unassalpha"], **options))
    np.testing.assert_array_equal(clear.pixels, _COLOURS)
    np.testing.assert_array_equal(clear.alpha, _GREY | 1)
    times = np.dstack([(_COLOURS * (both[..., 3:] / 65535)).astype(np.uint16), _GREY | 1])
    taken = read_photo(_tiff(times, photometric="rgb", extrasamples=["assocalpha"], **options))
    apart = np.abs(taken.pixels.astype(int) - _COLOURS) * (both[..., 3:] / 65535)
    assert apart.max() <= 2


@pytest.mark.parametrize(
    "values, options, said",
    [
        (_GREY.astype(np.uint32), {"photometric": "minisblack"}, "32 bits"),
        (_GREY.view(np.int16), {"photometric": "minisblack"}, "signed integers"),
        (_GREY.astype(np.uint8).view(np.int8), {"photometric": "minisblack"}, "signed integers"),
        (_GREY.astype(np.float32), {"photometric": "minisblack"}, "floating-point"),
        (_COLOURS.astype(np.float32), {"photometric": "rgb"}, "floating-point"),
        (_COLOURS.astype(np.uint8), {"photometric": "ycbcr"}, "YCbCr"),
        (
            np.ascontiguousarray(np.moveaxis(_COLOURS, -1, 0)),
            {"photometric": "rgb", "planarconfig": "separate"},
            "channels apart",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, values, options, said):
    (tmp_path / "strange.tif").write_bytes(_tiff(values, **options))
    with pytest.raises(UserError, match=rf"strange.tif.*{said}"):
        read_photo(tmp_path / "strange.tif")


def test_integers_of_unknown_range_are_refused_and_sixteen_bits_taken():
    with pytest.raises(UserError, match="up to 255"):
        of_pillow(Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16)))
    with pytest.raises(UserError, match="outside"):
        of_pillow(Image.fromarray(np.full((4, 4), 70000, np.int32)))
    deep = of_pillow(Image.fromarray(_GREY.astype(np.int32)))
    np.testing.assert_array_equal(deep.pixels[..., 0], _GREY)
    dark = of_pillow(Image.fromarray(np.full((4, 4), 200, np.uint16)))
    assert np.asarray(dark.rgb).max() == 1


@pytest.mark.parametrize("kind, count", [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_sixteen_bits_of_a_png_are_read_and_written(tmp_path, kind, count):
    values = np.random.default_rng(2).integers(1, 65536, (300, 7, count)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(make_png(values, 16, kind))
    photo = read_photo(tmp_path / "a.png")
    assert photo.bits == 16 and photo.grey == (count < 3)
    colours = values[..., : 1 if count < 3 else 3]
    np.testing.assert_array_equal(photo.pixels, np.broadcast_to(colours, photo.pixels.shape))
    assert (photo.alpha is None) == (count in (1, 3))
    for name in ("b.png", "b.tif"):
        write_photo(photo, tmp_path / name)
        again = read_photo(tmp_path / name)
        np.testing.assert_array_equal(again.pixels, photo.pixels)
        if photo.alpha is not None:
            np.testing.assert_array_equal(again.alpha, photo.alpha)
        if count != 2:
            # Another program reads the same.
            import cv2

            other = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED).reshape(values.shape)
            order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[count]
            np.testing.assert_array_equal(other[..., order], values)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.bmp"])
def test_a_format_of_eight_bits_gets_eight(tmp_path, name):
    write_photo(Photo(np.full((9, 9, 3), 0x8000, np.uint16)), tmp_path / name)
    again = read_photo(tmp_path / name)
    assert again.bits == 8 and np.abs(again.pixels.astype(int) - 128).max() <= 1
