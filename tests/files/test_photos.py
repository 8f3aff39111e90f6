"""Photographs of every kind are read alike; what is no photo is named."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.restoration.profiles import cmyk_profile
from vosr_jax.errors import UserError
from vosr_jax.files import atomic
from vosr_jax.files.photo import of_pillow
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import write_photo


@pytest.fixture
def picture() -> Image.Image:
    ramp = np.linspace(0, 255, 24 * 16 * 3).reshape(16, 24, 3)
    return Image.fromarray(ramp.astype(np.uint8))


def test_a_photograph_is_turned_upright_by_its_exif(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    turned = read_photo(tmp_path / "a.png").rgb
    assert turned.size == (16, 24)
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(picture), -1))


def test_the_colour_profile_comes_out_again(tmp_path, picture):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "a.png", icc_profile=profile)
    photo = read_photo(tmp_path / "a.png")
    write_photo(photo, tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info["icc_profile"] == profile


def test_grey_stays_grey_and_is_shown_in_eight_bits(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    photo = read_photo(tmp_path / "deep.png")
    assert photo.grey and photo.bits == 16
    np.testing.assert_array_equal(np.asarray(photo.rgb)[..., 1].ravel(), np.arange(256))
    assert photo.image.mode == "L"


def test_a_palette_that_holds_transparency_keeps_it(picture):
    picture.putalpha(90)
    photo = of_pillow(picture.quantize(16, Image.Quantize.FASTOCTREE))
    assert (photo.alpha == 90).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_is_kept(mode, picture):
    alpha = Image.fromarray(np.full((16, 24), 90, np.uint8))
    if mode == "P":
        source = picture.quantize(16)
        source.info["transparency"] = bytes([90] * 16)
    else:
        source = picture.convert("L" if mode == "LA" else "RGB")
        source.putalpha(alpha)
        source = source.convert(mode)
    finished = of_pillow(source).image
    assert finished.mode == ("LA" if mode == "LA" else "RGBA")
    assert finished.getchannel("A").getextrema() == (90, 90)


def test_cmyk_becomes_rgb(picture):
    photo = of_pillow(picture.convert("CMYK"))
    assert photo.rgb.mode == "RGB" and photo.alpha is None
    difference = np.asarray(photo.rgb, int) - np.asarray(picture, int)
    assert np.abs(difference).max() <= 2


def test_a_dark_sixteen_bit_picture_stays_dark():
    dark = Image.fromarray(np.full((4, 4), 200, np.uint16))
    assert np.asarray(of_pillow(dark).rgb).max() == 1
    with pytest.raises(UserError, match="outside"):
        of_pillow(Image.fromarray(np.full((4, 4), 70000, np.int32)))


def test_deep_colours_become_eight_bits(tmp_path, picture):
    deep = np.asarray(picture)[..., ::-1].astype(np.uint16) * 257
    for name in ("deep.png", "deep.tif"):
        cv2.imwrite(str(tmp_path / name), deep)
        difference = np.asarray(read_photo(tmp_path / name).rgb, int) - np.asarray(picture)
        assert np.abs(difference).max() <= 1


def test_cmyk_is_read_through_its_profile(tmp_path):
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:, :4, 0] = 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", icc_profile=cmyk_profile((60, 50, 40)))
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.icc_profile is None
    orange, white = np.asarray(photo.rgb, int)[4, [1, 6]]
    np.testing.assert_allclose(orange, [232, 103, 77], atol=8)
    assert white.min() > 245
    damaged = cmyk_profile((60, 50, 40))[:200]
    Image.fromarray(inks, "CMYK").save(tmp_path / "b.jpg", icc_profile=damaged)
    assert read_photo(tmp_path / "b.jpg").rgb.size == (8, 8)


def test_a_profile_of_other_colours_than_the_results_is_left_out(picture):
    for space, kept in ((b"RGB ", True), (b"CMYK", False), (b"GRAY", False)):
        picture.info["icc_profile"] = bytes(16) + space + bytes(100)
        assert (of_pillow(picture).icc_profile is not None) == kept
    grey = picture.convert("L")
    grey.info["icc_profile"] = bytes(16) + b"GRAY" + bytes(100)
    assert of_pillow(grey).icc_profile is not None


def test_a_lab_picture_keeps_its_colours(picture):
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    difference = np.asarray(of_pillow(lab).rgb, int) - np.asarray(picture)
    assert np.abs(difference).max() <= 6


def test_hidden_colours_take_those_of_the_nearest_visible_place():
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[:, :3] = 200, 10, 10, 255
    pixels[:, 6:] = 10, 10, 200, 1
    rgb = np.asarray(of_pillow(Image.fromarray(pixels)).rgb)
    assert (rgb[:, :4] == (200, 10, 10)).all() and (rgb[:, 5:] == (10, 10, 200)).all()


def _bomb(path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_what_is_no_picture_is_named(tmp_path, picture):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    picture.resize((300, 300)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:500])
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=[other])
    _bomb(tmp_path / "bomb.png")
    for name in ("empty.png", "text.png", "cut.png", "moving.gif", "bomb.png", "absent.png"):
        with pytest.raises(UserError, match=name):
            read_photo(tmp_path / name)


def test_a_large_picture_is_refused_by_its_header_and_the_limit_can_be_raised(tmp_path):
    Image.new("1", (3000, 1000)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match=r"large.png is 3000x1000, more than 2 megapixels"):
        read_photo(tmp_path / "large.png", max_megapixels=2)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 1000
    try:
        assert read_photo(tmp_path / "large.png").rgb.size == (3000, 1000)
        assert Image.MAX_IMAGE_PIXELS == 1000
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def test_a_format_that_cannot_hold_the_size_is_named(tmp_path):
    for name, width in (("a.webp", 16384), ("a.jpg", 65536)):
        with pytest.raises(UserError, match=name):
            write_photo(Image.new("L", (width, 2)), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_writing_leaves_nothing_but_the_result(tmp_path, picture):
    write_photo(picture, tmp_path / "new" / "a.jpg")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.jpg"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, picture):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        write_photo(picture, tmp_path / "file" / "a.png")
    with pytest.raises(UserError, match="xyz"):
        write_photo(picture, tmp_path / "a.xyz")
    picture.putalpha(3)
    with pytest.raises(UserError, match="transparency"):
        write_photo(picture, tmp_path / "a.jpg")


def test_a_failed_write_keeps_the_older_result(tmp_path, picture, monkeypatch):
    write_photo(picture, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space"):
        write_photo(picture, tmp_path / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
