"""DINOv2 files: sizes taken from the weights, everything that does not fit named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from tests.parameters.torch_files import save_torch
from vosr_jax.errors import UserError
from vosr_jax.models.dinov2 import weights as dinov2
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings
from vosr_jax.models.dinov2.weights import entries
from vosr_jax.parameters.tensors import to_official
from vosr_jax.weights import load_encoder

SETTINGS = DINOv2Settings(width=128, depth=3, heads=2, ffn_width=64, patch_size=4, grid=3)


def _official(settings):
    model = DINOv2(settings, rngs=nnx.Rngs(0))
    tensors = to_official(model, entries(settings))
    positions = [tensors.pop("pos_embed[cls]"), tensors.pop("pos_embed[patches]")]
    tensors["pos_embed"] = np.concatenate(positions, axis=1)
    tensors["mask_token"] = np.zeros((1, settings.width), np.float32)
    return model, tensors


@pytest.fixture(scope="module")
def official():
    return _official(SETTINGS)


def _same(a, b) -> bool:
    pairs = zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("variant", [{}, {"swiglu": True}, {"layer_scale": False}])
def test_sizes_and_variant_follow_from_the_weights(tmp_path, variant):
    settings = dataclasses.replace(SETTINGS, **variant)
    model, tensors = _official(settings)
    loaded, found = load_encoder(save_torch(tmp_path / "net.pth", tensors))
    assert found == settings
    assert _same(loaded, model)


# (width, depth, heads, hidden width, SwiGLU) of the four released networks.
RELEASED = {
    "vits14": (384, 12, 6, 1536, False),
    "vitb14": (768, 12, 12, 3072, False),
    "vitl14": (1024, 24, 16, 4096, False),
    "vitg14": (1536, 40, 24, 4096, True),
}


def _released_tensors(name: str, registers: int) -> dict[str, np.ndarray]:
    """Every official tensor in its shape, of the type that takes no memory."""
    width, depth, _, hidden, swiglu = RELEASED[name]
    shapes = {"cls_token": (1, 1, width), "mask_token": (1, width), "norm.weight": (width,)}
    shapes |= {"pos_embed": (1, 1370, width), "norm.bias": (width,)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    first, second = ("w12", "w3") if swiglu else ("fc1", "fc2")
    inner = 2 * hidden if swiglu else hidden
    for block in range(depth):
        own = {
            **{"norm1.weight": (width,), "norm1.bias": (width,), "ls1.gamma": (width,)},
            **{"norm2.weight": (width,), "norm2.bias": (width,), "ls2.gamma": (width,)},
            **{"attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,)},
            **{"attn.proj.weight": (width, width), "attn.proj.bias": (width,)},
            **{f"mlp.{first}.weight": (inner, width), f"mlp.{first}.bias": (inner,)},
            **{f"mlp.{second}.weight": (width, hidden), f"mlp.{second}.bias": (width,)},
        }
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in own.items()}
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("name", RELEASED)
def test_each_released_network_is_told_from_its_official_tensors(
    tmp_path, monkeypatch, name, registers
):
    tensors = _released_tensors(name, registers)
    monkeypatch.setattr(dinov2, "open_tensors", lambda path: tensors)
    width = RELEASED[name][0]
    path = tmp_path / f"dinov2_{name}_pretrain.pth"
    settings = dinov2.read_settings(path)
    found = (settings.width, settings.depth, settings.heads, settings.ffn_width, settings.swiglu)
    assert found == RELEASED[name]
    assert (settings.grid, settings.patch_size, settings.registers) == (37, 14, registers)
    assert settings.interpolate_antialias == bool(registers)
    # Of the blocks only the first is kept, so that the test stays small.
    if name != "vitg14":
        model, _ = load_encoder(path, block=0)
        assert model.blocks.scale1[...].shape == (1, width)
    del tensors["blocks.0.attn.qkv.bias"]
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.qkv\.bias is missing"):
        load_encoder(path, block=0)


def test_registers_bring_their_released_way_of_resizing_positions(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, registers=2, interpolate_offset=0.0, interpolate_antialias=True
    )
    _, tensors = _official(settings)
    assert load_encoder(save_torch(tmp_path / "net.pth", tensors))[1] == settings


def test_a_config_beside_the_weights_states_the_heads(tmp_path, official):
    save_file(official[1], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 4}))
    assert load_encoder(tmp_path)[1].heads == 4
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 3}))
    with pytest.raises(UserError, match="width 128 cannot have 3 heads"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": "two"}))
    with pytest.raises(UserError, match="num_heads is 'two'"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="must hold a json object, not a list"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is no readable json"):
        load_encoder(tmp_path)


def test_blocks_beyond_the_needed_one_are_not_kept(tmp_path, official):
    path = save_torch(tmp_path / "net.pth", official[1])
    short, settings = load_encoder(path, block=1)
    assert settings.kept_blocks == 2 and short.blocks.scale1[...].shape == (2, 128)
    image = np.random.default_rng(0).normal(size=(1, 12, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(short(image, 1), official[0](image, 1))
    assert load_encoder(path, block=2)[1].kept_blocks is None
    with pytest.raises(UserError, match="blocks 0 to 2; block 3 is asked"):
        load_encoder(path, block=3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"blocks.1.attn.proj.bias": None}, r"blocks\.1\.attn\.proj\.bias is missing"),
        ({"pos_embed": None}, "no DINOv2: tensor pos_embed is missing"),
        ({"blocks.1.extra": np.zeros(1, np.float32)}, r"blocks\.1\.extra is unexpected"),
        ({"norm.bias": np.zeros(5, np.float32)}, r"norm\.bias has shape \(5,\), not \(128,\)"),
        ({"patch_embed.proj.weight": np.zeros((), np.float32)}, "too few dimensions"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, official, change, sentence):
    tensors = {k: v for k, v in (official[1] | change).items() if v is not None}
    with pytest.raises(UserError, match=sentence) as caught:
        load_encoder(save_torch(tmp_path / "net.pth", tensors))
    assert "net.pth" in str(caught.value)


def test_a_folder_must_hold_one_candidate(tmp_path, official):
    with pytest.raises(UserError, match="expected one .safetensors or .pth file, found 0"):
        load_encoder(tmp_path)
    save_torch(tmp_path / "a.pth", official[1])
    save_torch(tmp_path / "b.pth", official[1])
    with pytest.raises(UserError, match="found 2"):
        load_encoder(tmp_path)
