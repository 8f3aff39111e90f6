"""Colour fixes against the official inference scripts' results."""

import numpy as np
import pytest

from tests.parity import goldens
from vosr_jax.files.photo import to_uint8
from vosr_jax.restoration import colour


def _cases():
    folder = goldens.folder("image_ops")
    data = goldens.arrays(folder / "colour.npz")
    for case in goldens.read_json(folder / "colour.json")["cases"]:
        number = case["case"]
        restored, source = (
            data[case[key]].astype(np.float32) / 255 for key in ("target", "source")
        )
        yield number, data, restored, source


def _check_bytes(case, ours, golden):
    """Off by one at most, and in at most 0.5% of the values."""
    difference = np.abs(ours.astype(int) - golden.astype(int))
    assert difference.max() <= 1
    goldens.record(case, float((difference > 0).mean()), 0.005)


def test_adain_is_the_official_fix():
    for number, data, restored, source in _cases():
        ours = colour.adain(restored, source)
        golden = goldens.nhwc(data[f"adain_float{number}"][None])[0]
        goldens.record(f"image_ops/adain_float/{number}", float(np.abs(ours - golden).max()), 1e-5)
        ours = to_uint8(ours, truncate=True)
        _check_bytes(f"image_ops/adain/{number}", ours, data[f"adain{number}"])


def test_wavelet_is_the_official_fix():
    for number, data, restored, source in _cases():
        ours = to_uint8(colour.wavelet(restored, source), truncate=True)
        _check_bytes(f"image_ops/wavelet/{number}", ours, data[f"wavelet{number}"])


def test_an_unknown_fix_is_refused():
    with pytest.raises(ValueError, match="lab"):
        colour.fix_colour("lab", np.zeros((2, 2, 3)), np.zeros((2, 2, 3)))
