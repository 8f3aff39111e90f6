"""What is dropped before training and why, and the dataset that comes out."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.data.conftest import encoded, picture
from vosr_jax.cli import main
from vosr_jax.data.pictures import decode_picture
from vosr_jax.data.preparation import FilterSettings
from vosr_jax.data.preparation.filters import (
    BLOCKY,
    BLURRED,
    TOO_SMALL,
    bands,
    blockiness,
    duplicates_in,
    grey_levels,
    hash_distance,
    judge,
    perceptual_hash,
    sharpness,
)
from vosr_jax.data.sources import parse_sources
from vosr_jax.errors import UserError


def sharp(seed, height=160, width=200):
    """A picture with fine structure."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(-40, 41, (height, width, 3))
    return np.clip(picture(seed, height, width) + fine, 0, 255).astype(np.uint8)


def as_jpeg(pixels, quality):
    return decode_picture(encoded(pixels, "JPEG", quality=quality))


def test_blur_lowers_sharpness_and_compression_raises_blockiness():
    pixels = sharp(0)
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4)))
    assert sharpness(grey_levels(blurred)) < 0.01 * sharpness(grey_levels(pixels))
    smooth = picture(0, 160, 200)
    plain, coarse = (blockiness(grey_levels(x)) for x in (smooth, as_jpeg(smooth, 10)))
    assert 0.9 < plain < 1.1 and coarse > 2
    assert blockiness(np.zeros((64, 64), np.float32)) == 1
    assert blockiness(np.zeros((4, 4), np.float32)) == 1


def test_the_hash_stays_with_the_content():
    one, other = picture(1, 160, 200), picture(2, 160, 200)
    base = perceptual_hash(grey_levels(one))
    assert 0 <= base < 1 << 64
    half = np.asarray(Image.fromarray(one).resize((100, 80)))
    brighter = np.clip(one.astype(int) + 12, 0, 255).astype(np.uint8)
    for same in (as_jpeg(one, 40), half, brighter):
        assert hash_distance(base, perceptual_hash(grey_levels(same))) <= 3
    assert hash_distance(base, perceptual_hash(grey_levels(other))) > 12


def test_a_picture_is_judged_by_size_blocks_and_blur_in_that_order():
    settings = FilterSettings(min_side=128, max_blockiness=1.5, min_sharpness=20)
    assert judge(sharp(3), settings).reason == ""
    assert judge(sharp(3, 100, 200), settings).reason == TOO_SMALL
    assert judge(as_jpeg(picture(3, 160, 200), 10), settings).reason == BLOCKY
    assert judge(picture(3, 160, 200), settings).reason == BLURRED
    anything = FilterSettings(min_side=1, max_blockiness=0, min_sharpness=0)
    assert judge(as_jpeg(picture(3, 160, 200), 10), anything).reason == ""


def test_near_hashes_share_a_band_whichever_bits_differ():
    rng = np.random.default_rng(0)
    for distance in (0, 1, 3, 7):
        for _ in range(50):
            one = int.from_bytes(rng.bytes(8), "big")
            other = one
            for bit in rng.choice(64, distance, replace=False):
                other ^= 1 << int(bit)
            assert set(bands(one, distance)) & set(bands(other, distance))
            assert len(list(bands(one, distance))) == distance + 1


def test_the_first_of_near_pictures_stays():
    group = [(4, "d", 0b0111), (1, "a", 0b0000), (2, "b", 0b0001), (3, "c", 0b11 << 40)]
    assert list(duplicates_in(group, 1)) == [(2, "b", "a")]
    assert list(duplicates_in(group, 0)) == []
    assert [rank for rank, _, _ in duplicates_in(group, 3)] == [2, 3, 4]


@pytest.fixture
def rubbish(tmp_path):
    """Six good pictures, and one of everything that is to be dropped."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"good{number}.png").write_bytes(encoded(sharp(number)))
    (folder / "repeat.jpg").write_bytes(encoded(sharp(2), "JPEG", quality=95))
    (folder / "small.png").write_bytes(encoded(sharp(7, 60, 200)))
    (folder / "blocky.jpg").write_bytes(encoded(picture(8, 160, 200), "JPEG", quality=10))
    (folder / "blurred.png").write_bytes(encoded(picture(9, 160, 200)))
    (folder / "cut.png").write_bytes(encoded(sharp(10))[:3000])
    return folder


ARGUMENTS = ["--min-side", "128", "--min-sharpness", "20"]


def prepared(folder, out, *more):
    assert main(["data", "prepare", str(folder), "-o", str(out), *ARGUMENTS, *more]) == 0
    return out / "photographs" / "1.0.0"


def test_prepare_writes_what_is_left_with_its_bytes_and_lists_the_rest(rubbish, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="pip install '.[prepare]'")
    dataset = prepared(rubbish, tmp_path / "out")
    said = capsys.readouterr().out
    assert "kept 6" in said and "duplicate 1" in said and str(dataset) in said
    listed = [json.loads(line) for line in (dataset / "dropped.jsonl").read_text().splitlines()]
    assert {line["record"].rpartition("/")[2]: line["reason"] for line in listed} == {
        "repeat.jpg": "duplicate",
        "small.png": "too small",
        "blocky.jpg": "blocky",
        "blurred.png": "blurred",
        "cut.png": "unreadable",
    }
    assert "good2.png" in next(x["detail"] for x in listed if x["reason"] == "duplicate")
    expected = {(rubbish / f"good{number}.png").read_bytes() for number in range(6)}
    for text in (str(dataset), f"tfds:photographs?data_dir={tmp_path / 'out'}"):
        (source,) = parse_sources(text)
        (source,) = pickle.loads(pickle.dumps((source,)))
        assert {source.open(position).read() for position in range(len(source))} == expected
    assert not list((tmp_path / "out").glob(".report*"))
    # And never over what is there.
    assert main(["data", "prepare", str(rubbish), "-o", str(tmp_path / "out")]) == 1


def test_several_processes_of_the_runner_give_the_same_records_in_the_same_order(rubbish, tmp_path):
    pytest.importorskip("apache_beam", reason="pip install '.[prepare]'")
    records = []
    for name, more in (("one", []), ("two", ["--workers", "2"])):
        (source,) = parse_sources(str(prepared(rubbish, tmp_path / name, *more)))
        records.append([source.open(position).read() for position in range(len(source))])
    assert records[0] == records[1]


def test_where_nothing_is_left_one_sentence_says_so_and_nothing_stays(rubbish, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="pip install '.[prepare]'")
    out = tmp_path / "out"
    assert main(["data", "prepare", str(rubbish), "-o", str(out), "--min-side", "9999"]) == 1
    assert "nothing is left" in capsys.readouterr().err
    assert not (out / "photographs" / "1.0.0").exists()
    assert not list(out.glob(".report*"))


def test_without_beam_one_sentence_says_what_to_install(tmp_path, monkeypatch, rubbish):
    from vosr_jax.data.preparation.prepare import prepare

    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(UserError, match=r"\.\[prepare\]"):
        prepare(str(rubbish), tmp_path / "out")


def test_reading_a_tensorflow_dataset_imports_no_tensorflow(rubbish, tmp_path):
    pytest.importorskip("apache_beam", reason="pip install '.[prepare]'")
    dataset = prepared(rubbish, tmp_path / "out")
    program = (
        "import sys; from vosr_jax.data.sources import parse_sources;"
        f"parse_sources({str(dataset)!r})[0].read(0);"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
