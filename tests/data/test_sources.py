"""Naming folders of pictures, and what is said when that goes wrong."""

import pytest

from vosr_jax.data.scikit_image_photos import HELD_OUT, TRAINING, scikit_image_photographs
from vosr_jax.data.sources import parse_sources
from vosr_jax.errors import UserError


def test_a_folder_is_searched_in_depth_and_sorted(photographs):
    (source,) = parse_sources(str(photographs))
    assert len(source) == 20
    assert list(source.files) == sorted(source.files)
    assert any("deeper" in name for name in source.files)
    assert source.read(0).shape == (56, 72, 3)


def test_weights_follow_a_colon_and_sources_a_comma(photographs):
    first, second = parse_sources(f"{photographs}:3, {photographs / 'deeper'}")
    assert first.weight == 3 and second.weight == 1
    assert len(second) < len(first)


def test_a_colon_in_a_folders_name_is_no_weight(photographs):
    odd = photographs.rename(photographs.parent / "photos:2")
    (source,) = parse_sources(str(odd))
    assert source.weight == 1


def test_unset_means_the_photographs_of_scikit_image():
    (source,) = parse_sources(None)
    assert len(source) == len(TRAINING)
    assert not set(HELD_OUT) & set(TRAINING)
    for position in range(len(source)):
        assert source.read(position).shape[2] == 3
    assert all(path.is_file() for path in scikit_image_photographs(HELD_OUT))


def test_errors_name_the_folder_and_say_what_to_do(tmp_path, photographs):
    with pytest.raises(UserError, match="nowhere; correct the path"):
        parse_sources(str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=r"no photographs in .*empty"):
        parse_sources(str(empty))
    with pytest.raises(UserError, match="name the folder"):
        parse_sources(f"files:{empty / 'notes.txt'}")
    with pytest.raises(UserError, match="must be above 0"):
        parse_sources(f"{photographs}:0")
    with pytest.raises(UserError, match="between two commas"):
        parse_sources(f"{photographs},,")
