"""A crop of an uncompressed file is read alone, and is the crop of the whole picture."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from vosr_jax.data.pictures import UnreadablePicture, decode_picture, raw_picture

PIXELS = picture(0, 203, 157)


class CountingFile(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("kind", ["PPM", "BMP", "TIFF"])
def test_a_region_has_the_pixels_of_the_whole_picture(kind):
    data = encoded(PIXELS, kind)
    assert np.array_equal(decode_picture(data), PIXELS)
    raw = raw_picture(io.BytesIO(data))
    assert (raw.height, raw.width) == PIXELS.shape[:2]
    rng = np.random.default_rng(0)
    for _ in range(30):
        top, left = int(rng.integers(203)), int(rng.integers(157))
        height, width = int(rng.integers(1, 204 - top)), int(rng.integers(1, 158 - left))
        expected = PIXELS[top : top + height, left : left + width]
        assert np.array_equal(raw.region(top, left, height, width), expected)


def test_only_the_rows_of_the_crop_are_read():
    file = CountingFile(encoded(picture(1, 1500, 1500), "PPM"))
    raw = raw_picture(file)
    file.count = 0
    raw.region(700, 300, 32, 32)
    assert file.count <= 32 * 1500 * 3


@pytest.mark.parametrize("kind", ["PPM", "BMP", "TIFF"])
def test_a_raw_file_cut_short_is_unreadable_also_where_the_crop_lies_above_the_cut(kind):
    data = encoded(PIXELS, kind)
    cut = data[: len(data) * 3 // 4]
    assert raw_picture(io.BytesIO(cut)) is None
    with pytest.raises(UnreadablePicture):
        decode_picture(cut)


def test_a_file_that_shrinks_while_it_is_read_is_unreadable():
    file = io.BytesIO(encoded(PIXELS, "PPM"))
    raw = raw_picture(file)
    file.truncate(5000)
    with pytest.raises(UnreadablePicture, match="ends before"):
        raw.region(150, 0, 32, 32)


def test_other_files_are_left_to_the_decoder():
    turned = Image.Exif()
    turned[0x0112] = 6
    for data in (
        encoded(PIXELS, "PNG"),
        encoded(PIXELS, "JPEG"),
        encoded(PIXELS, "TIFF", compression="tiff_lzw"),
        encoded(PIXELS, "TIFF", exif=turned),
        encoded(Image.fromarray(PIXELS).convert("L"), "BMP"),
        b"P6",
        b"",
    ):
        file = io.BytesIO(data)
        assert raw_picture(file) is None and file.tell() == 0
