"""Formats and odd files: what is read, and that chunks beside the pixels never cost the photo."""

import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.files.png_chunks import SIGNATURE, chunk, header, make_png
from vosr_jax.errors import UserError
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import write_photo

_PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 3))


@pytest.mark.parametrize(
    "name, kind",
    [
        *(("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.avif", "AVIF"), ("a.gif", "GIF")),
        *(("a.ppm", "PPM"), ("a.tga", "TGA"), ("a.bmp", "BMP"), ("a.jp2", "JPEG2000")),
    ],
)
def test_formats_of_phones_and_old_programs_are_read(tmp_path, name, kind):
    image = Image.new("RGB", (32, 24), (200, 100, 50))
    image.save(tmp_path / name, format=kind)
    photo = read_photo(tmp_path / name)
    assert photo.size == (32, 24)
    np.testing.assert_allclose(photo.pixels[12, 16], (200, 100, 50), atol=6)


def test_a_dark_portable_grey_map_of_sixteen_bits_stays_dark(tmp_path):
    values = np.arange(64, dtype=">u2").reshape(8, 8)
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + values.tobytes())
    photo = read_photo(tmp_path / "a.pgm")
    assert photo.bits == 16
    np.testing.assert_array_equal(photo.pixels[..., 0], values)


def test_heic_names_the_package_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(UserError, match=r"a.heic is HEIC.*vosr_jax\[heic\]"):
        read_photo(tmp_path / "a.heic")


def test_moving_pictures_are_refused(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.avif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match=f"{name} is animated"):
            read_photo(tmp_path / name)


_BIG = b"x" * 3_000_000
_BAD = (
    chunk(b"zTXt", b"key\0\0" + zlib.compress(_BIG)),
    chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(_BIG)),
    chunk(b"iTXt", b"key\0\0\0\0\0" + _BIG),
    chunk(b"tEXt", b"key\0text", sound=False),
    chunk(b"iCCP", b"name\0\0not deflated"),
    chunk(b"iCCP", b"name\0\7" + zlib.compress(b"x")),
    chunk(b"zTXt", b"key\0\7" + zlib.compress(b"x")),
    chunk(b"pHYs", b"1"),
    chunk(b"tRNS", b"1"),
    chunk(b"sRGB", b""),
    chunk(b"eXIf", b"not exif"),
    chunk(b"acTL", b"2"),
    chunk(b"fcTL", b"3"),
    chunk(b"prVt", bytes(100)),
    chunk(b"iTXt", b"key"),
    b"\0\0\x40\0tEXtkey\0its length is wrong",
)


@pytest.mark.parametrize("extra", _BAD, ids=lambda extra: f"{extra[4:8].decode()}{len(extra)}")
def test_no_chunk_beside_the_pixels_costs_the_photo(tmp_path, extra):
    (tmp_path / "a.png").write_bytes(make_png(_PIXELS, 8, 2, extra))
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, _PIXELS)
    write_photo(photo, tmp_path / "b.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png").pixels, _PIXELS)
    np.testing.assert_array_equal(Image.open(tmp_path / "b.png"), _PIXELS)


def test_a_damaged_chunk_of_pixels_is_no_photo(tmp_path):
    whole = make_png(_PIXELS, 8, 2)
    for name in (b"IHDR", b"IDAT"):
        at = whole.index(name) + 6
        (tmp_path / "a.png").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match="a.png is damaged.*checksum"):
            read_photo(tmp_path / "a.png")


def test_a_profile_of_two_megabytes_gives_a_result_that_can_be_read(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    for number, profile in enumerate((srgb + bytes(2_000_000), b"x" * 16 + b"RGB " + bytes(2**21))):
        image.save(tmp_path / f"{number}.jpg", icc_profile=profile)
        write_photo(read_photo(tmp_path / f"{number}.jpg"), tmp_path / f"{number}.png")
        for again in (read_photo(tmp_path / f"{number}.png").rgb, Image.open(tmp_path / "0.png")):
            np.testing.assert_allclose(np.asarray(again)[8, 8], (200, 100, 50), atol=4)


def test_a_header_that_promises_what_the_bytes_cannot_hold_is_refused_unread(tmp_path):
    parts = [header(9000, 9000, 8, 2), chunk(b"IDAT", zlib.compress(bytes(1000)))]
    (tmp_path / "a.png").write_bytes(SIGNATURE + b"".join(parts) + chunk(b"IEND", b""))
    small = tmp_path / "small.jpg"
    Image.new("RGB", (16, 16)).save(small)
    data = small.read_bytes()
    at = data.index(b"\xff\xc0") + 5
    (tmp_path / "a.jpg").write_bytes(data[:at] + struct.pack(">HH", 9000, 9000) + data[at + 4 :])
    for name in ("a.png", "a.jpg"):
        with pytest.raises(UserError, match="truncated"):
            read_photo(tmp_path / name)
