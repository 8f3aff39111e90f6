"""The denoiser's weights: official names and layout (models/lightningdit.py) <-> ours.

Both directions only reshape, transpose, stack and pad, so a round trip is bit-identical. Gradients
convert like weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.models.rotary import rotary_table
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.parameters.tensors import FLAT, SAME, Entry, Layout, assign, dense

ROTARY_BUFFERS = "feat_rope."


def entries(settings: LightningDiTSettings) -> list[Entry]:
    """The table of all parameters; `settings.detail_width` must be 0, as officially."""
    s = settings
    table = [Entry("x_embedder.proj.weight", ("patch_embed", "kernel"), _patch_embed(s))]
    table.append(Entry("x_embedder.proj.bias", ("patch_embed", "bias")))
    table += _linear("t_embedder.mlp.0", ("t_embedding", "hidden"))
    table += _linear("t_embedder.mlp.2", ("t_embedding", "out"))
    table += _linear("t_block.1", ("modulation",))
    table += _linear("final_layer.linear", ("final", "linear"))
    table += _linear("final_layer.adaLN_modulation.1", ("final", "modulation"))
    if s.rms_norm:
        table.append(Entry("final_layer.norm_final.weight", ("final", "norm", "weight")))
    if s.r_embedding:
        table += _linear("r_embedder.mlp.0", ("r_embedding", "hidden"))
        table += _linear("r_embedder.mlp.2", ("r_embedding", "out"))
    if s.token_width is not None:
        table += [Entry(f"layer_norm.{n}", ("token_norm", n)) for n in ("weight", "bias")]
        table += _linear("mlp_ca.fc1", ("token_mlp", "hidden"))
        table += _linear("mlp_ca.fc2", ("token_mlp", "out"))
    for layer in range(s.depth):
        table += _block(s, layer)
    return table


def rotary_buffers(settings: LightningDiTSettings) -> dict[str, np.ndarray]:
    """The rotary tables of the training grid, which official files store with the parameters."""
    if not settings.rotary:
        return {}
    side = settings.latent_size // settings.patch_size
    cosine, sine = rotary_table((side, side), side, settings.head_width)
    return {f"{ROTARY_BUFFERS}freqs_cos": cosine, f"{ROTARY_BUFFERS}freqs_sin": sine}


def _block(s: LightningDiTSettings, layer: int) -> Iterator[Entry]:
    official = f"blocks.{layer}"

    def linear(name: str, *ours: str) -> list[Entry]:
        return _linear(f"{official}.{name}", ("blocks", *ours), layer)

    yield Entry(f"{official}.scale_shift_table", ("blocks", "scale_shift_table"), SAME, layer)
    yield from linear("attn.qkv", "attn", "qkv")
    yield from linear("attn.proj", "attn", "proj")
    norms = ["attn.q_norm", "attn.k_norm"] if s.qk_norm else []
    if s.rms_norm:
        norms += ["norm1", "norm2"]
    if s.token_width is not None:
        for name, ours in (("q_linear", "query"), ("k_linear", "key"), ("v_linear", "value")):
            yield from linear(f"cross_attn.{name}", "cross_attn", ours)
        yield from linear("cross_attn.proj", "cross_attn", "proj")
        norms += ["cross_attn.q_norm", "cross_attn.k_norm"] if s.qk_norm else []
    for norm in norms:
        has_bias = norm.startswith("attn.") and not s.rms_norm
        for leaf in ("weight", "bias") if has_bias else ("weight",):
            path = ("blocks", *norm.split("."), leaf)
            yield Entry(f"{official}.{norm}.{leaf}", path, SAME, layer)
    if s.swiglu:
        yield from _swiglu(s, f"{official}.mlp", layer)
    else:
        yield from linear("mlp.fc1", "mlp", "hidden")
        yield from linear("mlp.fc2", "mlp", "out")


def _swiglu(s: LightningDiTSettings, official: str, layer: int) -> Iterator[Entry]:
    unpadded, extra = s.swiglu_width, s.padded_swiglu_width - s.swiglu_width

    def pad(x: np.ndarray, axis: int) -> np.ndarray:
        return np.pad(x, [(0, extra if a == axis % x.ndim else 0) for a in range(x.ndim)])

    gate_up = Layout(
        lambda x, shape: pad(x.T.reshape(s.width, 2, unpadded), -1),
        lambda x: x[..., :unpadded].reshape(s.width, -1).T,
    )
    gate_up_bias = Layout(
        lambda x, shape: pad(x.reshape(2, unpadded), -1), lambda x: x[:, :unpadded].reshape(-1)
    )
    out = Layout(lambda x, shape: pad(x.T, 0), lambda x: x[:unpadded].T)
    ours = ("blocks", "mlp")
    yield Entry(f"{official}.w12.weight", (*ours, "gate_up", "kernel"), gate_up, layer)
    yield Entry(f"{official}.w12.bias", (*ours, "gate_up", "bias"), gate_up_bias, layer)
    yield Entry(f"{official}.w3.weight", (*ours, "out", "kernel"), out, layer)
    yield Entry(f"{official}.w3.bias", (*ours, "out", "bias"), SAME, layer)


def _linear(official: str, ours: tuple[str, ...], layer: int | None = None) -> list[Entry]:
    return [
        Entry(f"{official}.weight", (*ours, "kernel"), dense(), layer),
        Entry(f"{official}.bias", (*ours, "bias"), FLAT, layer),
    ]


def _patch_embed(s: LightningDiTSettings) -> Layout:
    p = s.patch_size
    return Layout(
        lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape),
        lambda x: x.reshape(p, p, -1, s.width).transpose(3, 2, 0, 1),
    )


def from_official(
    tensors: Mapping[str, np.ndarray], settings: LightningDiTSettings, path: str, **options: Any
) -> HostNetwork[LightningDiT]:
    """Build a denoiser from official tensors, without reading them yet.

    Args:
      tensors: {official name: array}; every parameter must be present and no other, except the
        rotary buffers, which follow from the settings.
      settings: of the network.
      path: the file that they come from, for messages.
      **options: `dtype` and `remat` of `LightningDiT`.

    Returns:
      The network.

    Raises:
      UserError: a tensor is missing, unexpected or misshapen; the message names it.
    """

    def build() -> LightningDiT:
        return LightningDiT(settings, rngs=nnx.Rngs(0), **options)

    return assign(build, entries(settings), tensors, path, ignored=(ROTARY_BUFFERS,))
