"""Every mode, orientation and format comes out upright."""

import io

import numpy as np
import pytest
from PIL import Image

from vosr_jax.files.photo_reading import photo_size, read_photo

_FORMATS = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "PA", "LAB", "I;16"),
}
_CASES = [(kind, mode) for kind, modes in _FORMATS.items() for mode in modes]
# How a photo that lies so on disk is turned upright, after EXIF 2.3's table.
_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def _image(mode: str) -> Image.Image:
    ramp = np.arange(24 * 16 * 3).reshape(16, 24, 3) * 255 // (24 * 16 * 3)
    image = Image.fromarray(ramp.astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((ramp[..., 0] * 257).astype(np.uint16))
    if mode == "LAB":
        return Image.fromarray(ramp.astype(np.uint8), "LAB")
    if "A" in mode:
        image.putalpha(Image.fromarray(np.maximum(ramp[..., 1], 1).astype(np.uint8)))
    return image.quantize(64) if mode == "P" else image.convert(mode)


def _saved(image: Image.Image, kind: str, orientation: int | None, path) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "TIFF": {"compression": None}}.get(kind, {})
    image.save(path, format=kind, exif=exif, **options)


@pytest.mark.parametrize("kind, mode", _CASES)
def test_a_photo_of_any_mode_and_format_is_turned_upright(tmp_path, kind, mode):
    image = _image(mode)
    plain = tmp_path / "plain"
    _saved(image, kind, None, plain)
    before = read_photo(plain)
    for orientation, upright in _UPRIGHT.items():
        turned = tmp_path / f"{orientation}"
        _saved(image, kind, orientation, turned)
        after = read_photo(turned)
        np.testing.assert_array_equal(after.pixels, upright(before.pixels), str(orientation))
        if before.alpha is not None:
            np.testing.assert_array_equal(after.alpha, upright(before.alpha))
        assert sorted(photo_size(turned)) == [16, 24]


def test_deep_tiffs_packed_or_not_are_turned_upright(tmp_path):
    import tifffile

    values = np.random.default_rng(0).integers(0, 65536, (6, 9, 3)).astype(np.uint16)
    for packing in (None, "zlib"):
        for orientation, upright in _UPRIGHT.items():
            tag = (274, "H", 1, orientation, False)
            file = io.BytesIO()
            tifffile.imwrite(file, values, photometric="rgb", compression=packing, extratags=[tag])
            read = read_photo(file.getvalue())
            assert read.bits == 16
            np.testing.assert_array_equal(read.pixels, upright(values))


def test_an_orientation_that_xmp_alone_asks_for_counts(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    _image("RGB").save(tmp_path / "a.jpg", xmp=xmp)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.size == (16, 24)
    assert b'tiff:Orientation="1"' in photo.metadata.xmp
