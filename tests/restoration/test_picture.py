"""Photographs of every kind are read alike; what is no photograph is named."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from vosr_jax.errors import UserError
from vosr_jax.restoration.photograph import prepare
from vosr_jax.restoration.picture import read_photograph, write_picture


@pytest.fixture
def picture() -> Image.Image:
    ramp = np.linspace(0, 255, 24 * 16 * 3).reshape(16, 24, 3)
    return Image.fromarray(ramp.astype(np.uint8))


def test_a_photograph_is_turned_upright_by_its_exif(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    turned = read_photograph(tmp_path / "a.png").rgb
    assert turned.size == (16, 24)
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(picture), -1))


def test_the_colour_profile_comes_out_again(tmp_path, picture):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "a.png", icc_profile=profile)
    photograph = read_photograph(tmp_path / "a.png")
    write_picture(photograph.finish(photograph.rgb), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info["icc_profile"] == profile


def test_grey_stays_grey_and_sixteen_bits_become_eight(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    photograph = read_photograph(tmp_path / "deep.png")
    assert photograph.grey
    np.testing.assert_array_equal(np.asarray(photograph.rgb)[..., 1].ravel(), np.arange(256))
    assert photograph.finish(photograph.rgb).mode == "L"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_is_kept_and_resized(mode, picture):
    alpha = Image.fromarray(np.full((16, 24), 90, np.uint8))
    if mode == "P":
        source = picture.quantize(16)
        source.info["transparency"] = bytes([90] * 16)
    else:
        source = picture.convert("L" if mode == "LA" else "RGB")
        source.putalpha(alpha)
        source = source.convert(mode)
    photograph = prepare(source)
    finished = photograph.finish(photograph.rgb.resize((96, 64)))
    assert finished.mode == ("LA" if mode == "LA" else "RGBA")
    assert finished.getchannel("A").getextrema() == (90, 90)


def test_cmyk_becomes_rgb(picture):
    photograph = prepare(picture.convert("CMYK"))
    assert photograph.rgb.mode == "RGB" and photograph.alpha is None
    difference = np.asarray(photograph.rgb, int) - np.asarray(picture, int)
    assert np.abs(difference).max() <= 2


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
            read_photograph(tmp_path / name)


def test_writing_leaves_nothing_but_the_result(tmp_path, picture):
    write_picture(picture, tmp_path / "new" / "a.jpg")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.jpg"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, picture):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        write_picture(picture, tmp_path / "file" / "a.png")
    with pytest.raises(UserError, match="xyz"):
        write_picture(picture, tmp_path / "a.xyz")
    picture.putalpha(3)
    with pytest.raises(UserError, match="transparency"):
        write_picture(picture, tmp_path / "a.jpg")


def test_a_failed_write_keeps_the_older_result(tmp_path, picture, monkeypatch):
    write_picture(picture, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full_disk(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(UserError, match="No space"):
        write_picture(picture, tmp_path / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
