"""The loop's validation reads the pictures that it uses, and no others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import picture
from tests.training.tiny import tiny_config
from vosr_jax.data import validation
from vosr_jax.errors import UserError
from vosr_jax.training.preview import Preview


def folder_of(tmp_path: Path, count: int, unreadable: tuple[int, ...] = ()) -> Path:
    folder = tmp_path / "judged"
    folder.mkdir()
    for number in range(count):
        file = folder / f"p{number:03d}.png"
        Image.fromarray(picture(number)).save(file)
        if number in unreadable:
            file.write_bytes(b"no picture")
    return folder


def names(folder: Path, tmp_path: Path, pictures: int = 3) -> list[str]:
    config = tiny_config(eval={"hr": str(folder), "pictures": pictures}, train={"eval_every": 1})
    return [pair.name for pair in Preview(config, tmp_path).pairs]


def test_a_corrupt_picture_beside_those_that_are_used_is_not_read(tmp_path, monkeypatch):
    folder = folder_of(tmp_path, 200, unreadable=tuple(range(3, 200)))
    read = []
    original = validation.read_picture
    monkeypatch.setattr(validation, "read_picture", lambda p: read.append(p) or original(p))
    assert names(folder, tmp_path) == ["p000-0", "p001-0", "p002-0"]
    assert len(read) == 3


def test_a_corrupt_picture_that_was_chosen_is_named_and_the_next_taken(tmp_path, caplog):
    folder = folder_of(tmp_path, 5, unreadable=(1,))
    assert names(folder, tmp_path) == ["p000-0", "p002-0", "p003-0"]
    assert "p001.png cannot be read" in caplog.text and caplog.text.count("p001.png") == 1


def test_pairs_are_those_that_a_whole_folder_gives(tmp_path):
    folder = folder_of(tmp_path, 5)
    config = tiny_config(eval={"hr": str(folder), "pictures": 3}, train={"eval_every": 1})
    few = Preview(config, tmp_path).pairs
    config = tiny_config(eval={"hr": str(folder), "pictures": 5}, train={"eval_every": 1})
    for one, other in zip(few, Preview(config, tmp_path).pairs[:3], strict=True):
        np.testing.assert_array_equal(one.lq, other.lq)


def test_where_no_picture_can_be_read_the_sentence_names_one(tmp_path):
    folder = folder_of(tmp_path, 2, unreadable=(0, 1))
    with pytest.raises(UserError, match="p001.png cannot be read: .*; nor can any other"):
        names(folder, tmp_path)
