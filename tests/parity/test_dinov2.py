"""DINOv2 and its preprocessing against the official implementation."""

import re

import jax
import numpy as np
import pytest

from tests.parity import goldens
from vosr_jax.models.dinov2 import network as dinov2
from vosr_jax.weights import load_encoder

TOLERANCE = 2e-5


@pytest.mark.parametrize("variant", goldens.cases("dinov2", "io.npz"))
@pytest.mark.parametrize("file", ["model.safetensors", "model.pth"])
def test_tokens_after_every_block_are_the_official_ones(variant, file):
    folder = goldens.folder("dinov2") / variant
    arrays = goldens.arrays(folder / "io.npz")
    model, settings = load_encoder(folder / file)
    tokens = jax.jit(type(model).tokens, static_argnames=("block", "final_norm"))
    for name, golden in arrays.items():
        match = re.fullmatch(r"(tokens|cls)(\d+(?:x\d+)?)_(?:block(\d+)|norm)", name)
        if not match:
            assert name.startswith("image"), f"unknown array {name}"
            continue
        kind, side, block = match.groups()
        image = goldens.nhwc(arrays[f"image{side}"])
        block = None if block is None else int(block)
        ours = np.asarray(tokens(model, image, block=block, final_norm=block is None))
        ours = ours[:, 0] if kind == "cls" else ours[:, 1 + settings.registers :]
        goldens.check(f"dinov2/{variant}/{file}/{name}", ours, golden, TOLERANCE)


def test_preprocessing_is_the_official_one():
    arrays = goldens.arrays(goldens.folder("dinov2") / "preprocess.npz")
    image = goldens.nhwc(arrays["image01"])
    outputs = {name: value for name, value in arrays.items() if name.startswith("out")}
    assert outputs
    for name, golden in outputs.items():
        ours = np.asarray(dinov2.preprocess(image, int(name.removeprefix("out"))))
        goldens.check(f"dinov2/preprocess/{name}", ours, goldens.nhwc(golden), TOLERANCE)
