"""Whatever lies in a folder of photographs: nothing stops a run, and nothing passes unseen."""

import dataclasses
import io
import itertools
import json
import logging
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from vosr_jax.data.pipeline import PipelineSettings, batches
from vosr_jax.data.sources import parse_sources
from vosr_jax.errors import UserError

GOOD = 8
WHOLE = encoded(picture(50))
GREY16 = Image.fromarray((np.arange(4096, dtype=np.uint16) * 16).reshape(64, 64))

UNREADABLE = {
    "cut.png": WHOLE[: len(WHOLE) // 2],
    "cut.jpg": encoded(picture(51), "JPEG")[:-200],
    "cut.ppm": encoded(picture(52), "PPM")[:-200],
    "empty.png": b"",
    "text.jpg": b"This is no picture, whatever its name says.",
    "page.png": b"<html><body>404 not found</body></html>",
    "archive.webp": b"PK\x03\x04" + bytes(200),
}
READABLE = {
    "wrong_suffix.jpg": WHOLE,
    "cmyk.jpg": encoded(Image.fromarray(picture(53)).convert("CMYK"), "JPEG"),
    "sixteen_bits.png": encoded(GREY16),
    "palette.png": encoded(Image.fromarray(picture(54)).quantize(16)),
    "alpha.png": encoded(Image.fromarray(picture(55)).convert("RGBA")),
    "grey.png": encoded(Image.fromarray(picture(56)).convert("L")),
    "raw.bmp": encoded(picture(57), "BMP"),
}


def settings(folder, **changes):
    base = PipelineSettings(
        sources=str(folder), seed=3, batch_size=8, crop_size=32, max_bad_fraction=0.5
    )
    return dataclasses.replace(base, **changes)


def fill(folder):
    for number in range(GOOD):
        (folder / f"good{number}.png").write_bytes(encoded(picture(number)))


def run(pipeline, listed, count):
    """(samples replaced, enlarged, records listed) after so many batches."""
    with batches(pipeline, bad_records_path=listed) as own:
        for batch in itertools.islice(own, count):
            assert batch["hr"].any(axis=(1, 2, 3)).all()
        counts = own.log.counts()
    records = []
    if listed.exists():
        records = [json.loads(line) for line in listed.read_text().splitlines()]
    return counts["replaced"], counts["enlarged"], records


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_is_replaced_counted_and_listed_with_its_reason(tmp_path, name):
    folder = tmp_path / "pictures"
    folder.mkdir()
    fill(folder)
    (folder / name).write_bytes(UNREADABLE[name])
    replaced, _, records = run(settings(folder), tmp_path / "bad.jsonl", 9)
    # Of 72 samples every pass of 9 meets it once.
    assert replaced >= 8
    assert [os.path.basename(record["record"]) for record in records] == [name]
    assert records[0]["reason"] and records[0]["source"] == str(folder)


@pytest.mark.parametrize("name", READABLE)
def test_an_unusual_picture_is_used(tmp_path, name):
    (tmp_path / name).write_bytes(READABLE[name])
    replaced, enlarged, records = run(settings(tmp_path), tmp_path / "bad.jsonl", 2)
    assert (replaced, enlarged, records) == (0, 0, [])


def test_a_folder_with_a_pictures_name_is_no_picture(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "album.png").mkdir(parents=True)
    fill(folder)
    assert len(parse_sources(str(folder))[0]) == GOOD


def test_a_picture_that_goes_before_it_is_read_is_listed(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    fill(folder)
    with batches(settings(folder), bad_records_path=tmp_path / "bad.jsonl") as own:
        (folder / "good3.png").unlink()
        for _ in range(6):
            next(own)
        assert own.log.replaced > 0
    (line,) = (tmp_path / "bad.jsonl").read_text().splitlines()
    assert "good3.png" in line and "No such file" in line


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of Unix")
def test_a_file_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    fill(folder)
    locked = folder / "locked.png"
    locked.write_bytes(WHOLE)
    locked.chmod(0)
    if os.geteuid() == 0:
        # The administrator may read everything, so the refusal is played.
        monkeypatch.setattr(
            "vosr_jax.data.sources.storage.open", refusing(str(locked)), raising=False
        )
    replaced, _, records = run(settings(folder), tmp_path / "bad.jsonl", 9)
    assert replaced >= 8
    assert [record["reason"] for record in records] == ["Permission denied"]


def refusing(path):
    def open_unless_locked(name, *arguments):
        if name == path:
            raise PermissionError(13, "Permission denied", name)
        return open(name, *arguments)

    return open_unless_locked


def test_small_pictures_are_enlarged_counted_and_told_of_once(tmp_path, caplog):
    folder = tmp_path / "pictures"
    folder.mkdir()
    fill(folder)
    (folder / "small.png").write_bytes(encoded(picture(60, 20, 24)))
    with caplog.at_level(logging.WARNING):
        replaced, enlarged, _ = run(settings(folder), tmp_path / "bad.jsonl", 9)
    assert replaced == 0 and enlarged >= 8
    assert sum("enlarged" in record.message for record in caplog.records) == 1


def test_a_tar_cut_in_the_middle_does_not_stop_the_run(tmp_path):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(GOOD):
            data = encoded(picture(number))
            about = tarfile.TarInfo(f"{number}.png")
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
            end = tar.offset
    whole = path.read_bytes()
    path.write_bytes(whole[: end - 3000])
    replaced, _, records = run(settings(path), tmp_path / "bad.jsonl", 9)
    assert replaced >= 8
    assert [record["record"] for record in records] == [f"{path}/{GOOD - 1}.png"]
    assert "tar file ends" in records[0]["reason"]


def test_nothing_but_broken_files_ends_the_run_and_names_the_source(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with batches(settings(tmp_path)) as own, pytest.raises(UserError, match="no picture of") as e:
        next(own)
    assert str(tmp_path) in str(e.value)
