"""A folder of photographs is looked through, told of, and divided."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vosr_jax.errors import UserError
from vosr_jax.tuning.photographs import FEWEST, divide, look

SIDE = 64


def photograph(number: int, side: int = SIDE) -> Image.Image:
    """Coloured noise of coarse cells: sharp, and like no other."""
    cells = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(cells).resize((side + number, side), Image.Resampling.NEAREST)


def write(folder: Path, count: int, side: int = SIDE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        photograph(number, side).save(folder / f"{number:02}.png")
    return folder


def test_what_serves_and_what_does_not_is_counted_and_named(tmp_path):
    folder = write(tmp_path / "photos", 12)
    photograph(3, 40).save(folder / "tiny.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    (folder / "phone.HEIC").write_bytes(b"x")
    photograph(5).filter(ImageFilter.GaussianBlur(30)).save(folder / "fog.png")
    lines: list[str] = []
    found = look(folder, SIDE, lines.append)
    assert len(found.good) == 12
    text = "\n".join(lines)
    assert "12 photographs serve" in text and "megapixels" in text
    assert f"smaller than {SIDE} px: 1 (tiny.png)" in text
    assert "unreadable: 1 (torn.jpg)" in text
    assert "save them as JPEG first: 1 (phone.HEIC)" in text
    assert "soft, nothing in focus: 1 (fog.png)" in text


def test_a_division_is_the_same_every_time_and_nothing_is_in_both(tmp_path):
    found = look(write(tmp_path / "photos", 30), SIDE, lambda line: None)
    training, held_out = divide(found)
    assert len(held_out) == 5 and len(training) == 25
    assert not set(training) & set(held_out) and divide(found) == (training, held_out)


def test_twelve_still_serve_and_two_are_held_out(tmp_path):
    training, held_out = divide(look(write(tmp_path / "photos", 12), SIDE, lambda line: None))
    assert len(held_out) == 2 and len(training) == 10


def test_what_shows_the_same_as_a_held_out_one_is_not_trained_on(tmp_path):
    folder = write(tmp_path / "photos", 12)
    for file in sorted(folder.glob("*.png")):
        Image.open(file).save(folder / f"twin-{file.stem}.jpg", quality=95)
    training, held_out = divide(look(folder, SIDE, lambda line: None))
    shown = {file.stem.removeprefix("twin-") for file in held_out}
    assert len(held_out) == 4
    assert not shown & {file.stem.removeprefix("twin-") for file in training}


def test_a_folder_of_one_picture_many_times_is_refused(tmp_path):
    for number in range(12):
        (tmp_path / "photos").mkdir(exist_ok=True)
        photograph(1).save(tmp_path / "photos" / f"{number}.png")
    with pytest.raises(UserError, match="nearly all photographs show the same thing"):
        divide(look(tmp_path / "photos", SIDE, lambda line: None))


@pytest.mark.parametrize(
    ("count", "side", "sentence"),
    [
        (0, SIDE, "no photographs in"),
        (FEWEST - 1, SIDE, f"7 of 7 photographs serve, and at least {FEWEST} are needed; add"),
        (12, 40, "0 of 12 photographs serve"),
    ],
)
def test_too_few_are_refused_with_what_to_do(tmp_path, count, side, sentence):
    folder = write(tmp_path / "photos", count, side)
    with pytest.raises(UserError, match=sentence) as error:
        look(folder, SIDE, lambda line: None)
    assert "data.sources" not in str(error.value)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        look(tmp_path / "nowhere", SIDE)
