"""Every kind of picture file becomes 8-bit RGB, and what is none says why."""

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from vosr_jax.data.pictures import (
    UnreadablePicture,
    decode_picture,
    is_picture_path,
    read_picture,
)


def test_rgb_comes_back_unchanged():
    pixels = picture(0)
    assert np.array_equal(decode_picture(encoded(Image.fromarray(pixels))), pixels)


def test_grey_and_palette_become_rgb():
    grey = Image.fromarray(picture(1)).convert("L")
    decoded = decode_picture(encoded(grey))
    assert decoded.shape == (56, 72, 3) and np.ptp(decoded, axis=-1).max() == 0
    palette = Image.fromarray(picture(1)).quantize(16)
    assert np.array_equal(decode_picture(encoded(palette)), np.asarray(palette.convert("RGB")))


def test_transparency_lies_over_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    decoded = decode_picture(encoded(Image.fromarray(pixels, "RGBA")))
    assert (decoded[:2] == 0).all() and (decoded[2:] == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert (decode_picture(encoded(palette, transparency=0)) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_reduced_to_eight(kind):
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    decoded = decode_picture(encoded(Image.fromarray(values), kind))
    assert np.array_equal(decoded[..., 1], (values // 257).astype(np.uint8))


def test_cmyk_is_converted():
    image = Image.fromarray(picture(2))
    decoded = decode_picture(encoded(image.convert("CMYK"), "JPEG", quality=95))
    assert decoded.shape == (56, 72, 3)
    assert np.abs(decoded.astype(int) - np.asarray(image)).mean() < 6


def test_the_exif_orientation_turns_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(picture(3))
    decoded = decode_picture(encoded(image, "PNG", exif=exif))
    assert np.array_equal(decoded, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named_as_such(content, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UnreadablePicture):
        read_picture(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_picture_is_not_passed_off_as_whole(kind):
    data = encoded(Image.fromarray(picture(4, 200, 200)), kind)
    with pytest.raises(UnreadablePicture):
        decode_picture(data[: len(data) // 2])


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadablePicture, match="No such file"):
        read_picture(tmp_path / "gone.png")


def test_a_picture_with_the_wrong_suffix_is_read(tmp_path):
    Image.fromarray(picture(5)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg").shape == (56, 72, 3)


def test_only_visible_files_with_a_pictures_suffix_count():
    assert is_picture_path("a/b.JPG") and is_picture_path("b.webp")
    assert not is_picture_path("a/.b.jpg") and not is_picture_path("notes.txt")
