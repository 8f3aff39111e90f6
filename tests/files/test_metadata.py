"""What a file says of its photo is in the result, without orientation, thumbnail, old layout."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import write_photo

_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6">'
    b"<dc:subject>harbour</dc:subject><xmp:Thumbnails>AAAA</xmp:Thumbnails>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
_IPTC = b"\x1c\x02\x19\x00\x07harbour"


def _rational(value: float) -> TiffImagePlugin.IFDRational:
    return TiffImagePlugin.IFDRational(value)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B] = "A. Photographer"
    exif[0x010F] = "Maker"
    exif[0x8769] = {
        0x9003: "2024:05:06 07:08:09",
        0x829A: _rational(1 / 250),
        0xA002: 24,
        0xA003: 16,
        0x9286: b"ASCII\0\0\0hello",
        0xA434: "A lens",
    }
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 12.5), 3: "E", 4: (13.0, 24.0, 1.0)}
    return exif


def _source(path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    options: dict = {"exif": _exif(), "dpi": (300, 300)}
    if path.suffix == ".tif":
        exif = Image.Exif()
        exif.load(_exif().tobytes())
        exif[700], exif[33723] = _XMP, _IPTC
        image.save(path, exif=exif, dpi=(300, 300))
        return
    if path.suffix == ".jpg":
        block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(_IPTC).to_bytes(4, "big") + _IPTC
        options["extra"] = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    if path.suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", _XMP.decode())
        info.add_text("Title", "A harbour at the sea: ö")
        options["pnginfo"] = info
    else:
        options["xmp"] = _XMP
    image.save(path, **options)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_date_place_artist_keywords_and_resolution_are_kept(tmp_path, source, ending):
    _source(tmp_path / source)
    photo = read_photo(tmp_path / source)
    assert photo.size == (16, 24)
    larger = Photo(photo.pixels.repeat(2, 0).repeat(2, 1), metadata=photo.metadata)
    write_photo(larger, tmp_path / f"result.{ending}")
    image = Image.open(tmp_path / f"result.{ending}")
    image.load()
    exif = image.getexif()
    assert exif.get(0x0112, 1) == 1
    assert exif[0x013B] == "A. Photographer" and exif[0x010F] == "Maker"
    details, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert details[0x9003] == "2024:05:06 07:08:09" and details[0xA434] == "A lens"
    assert details[0x829A] == pytest.approx(1 / 250) and details[0x9286] == b"ASCII\0\0\0hello"
    assert (details[0xA002], details[0xA003]) == (32, 48)
    assert place[2] == (52.0, 30.0, 12.5) and place[3] == "E"
    assert not exif.get_ifd(1)
    again = read_photo(tmp_path / f"result.{ending}")
    assert b"harbour" in again.metadata.xmp and b"Thumbnails" not in again.metadata.xmp
    assert again.size == (32, 48)
    if source != "a.webp" and ending != "webp":
        np.testing.assert_allclose(again.metadata.dpi, (300, 300), atol=0.5)
    if source in ("a.jpg", "a.tif") and ending != "webp":
        assert again.metadata.iptc.rstrip(b"\0") == _IPTC
    if source == "a.png" and ending == "png":
        assert ("Title", "A harbour at the sea: ö") in again.metadata.texts


def test_a_thumbnail_is_dropped(tmp_path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (160, 120), "red").save(thumbnail, "JPEG")
    exif = _exif()
    exif._ifds[1] = {0x0201: 0, 0x0202: len(thumbnail.getvalue())}
    data = exif.tobytes() + thumbnail.getvalue()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=data)
    write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    assert thumbnail.getvalue()[20:200] not in (tmp_path / "b.jpg").read_bytes()
    assert Image.open(tmp_path / "b.jpg").getexif()[0x013B] == "A. Photographer"


def test_damaged_metadata_costs_nothing_else(tmp_path):
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    for number, exif in enumerate((b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x")):
        image.save(tmp_path / f"{number}.png", exif=exif)
        image.save(tmp_path / f"{number}.jpg", exif=exif)
        for ending in ("png", "jpg"):
            photo = read_photo(tmp_path / f"{number}.{ending}")
            assert photo.size == (8, 8)
            write_photo(photo, tmp_path / f"again.{ending}")
            assert read_photo(tmp_path / f"again.{ending}").size == (8, 8)


def test_what_a_jpeg_cannot_hold_is_left_out_of_it_alone(tmp_path):
    texts = (("Comment", "x" * 70000),)
    from vosr_jax.files.metadata import Metadata

    metadata = Metadata(xmp=b"<x>" + b"y" * 70000, iptc=b"z" * 70000, texts=texts)
    photo = Photo(np.zeros((4, 4, 3), np.uint8), metadata=metadata)
    for ending in ("jpg", "png", "tif"):
        write_photo(photo, tmp_path / f"a.{ending}")
    assert read_photo(tmp_path / "a.jpg").metadata == Metadata()
    assert read_photo(tmp_path / "a.png").metadata == metadata
    kept = read_photo(tmp_path / "a.tif").metadata
    assert (kept.xmp, kept.iptc) == (metadata.xmp, metadata.iptc)
