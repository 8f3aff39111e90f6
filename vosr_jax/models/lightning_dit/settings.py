"""Settings of a LightningDiT, with the released sizes."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class LightningDiTArchitecture:
    """The network's settings that a user chooses; `model` of a config adds those of training.

    Attributes:
      patch_size: latent pixels on a token's side.
      width: channels of a token.
      depth: number of blocks.
      heads: attention heads; width / heads channels each.
      mlp_ratio: hidden width over width, before SwiGLU's factor 2/3.
      token_hidden_ratio: hidden width of the visual tokens' MLP over width.
      r_embedding: whether the interval's end r is a second time input.
      qk_norm, swiglu, rotary, rms_norm: parts that the official ablations switch off.
      rescale_positions: whether rotary positions of another grid are rescaled to the training
        grid's span (official); False keeps integer positions.
      swiglu_multiple: the SwiGLU hidden width is padded with zeros to a multiple of this;
        the padding does not change the result and is dropped on export.
      detail_width: channels of the convolutional stem and head around the transformer; 0, as in
        the official network, means none.
      detail_blocks: residual blocks of the head.
      detail_stem_blocks: residual blocks of the stem.
      pixel_width: channels of the head's last convolutions, on the pixels of a latent that is a
        rearranged image; 0 means none.
      remove_weave: with pixel_width, whether the head removes the patterns that repeat from latent
        pixel to latent pixel (`without_weave`); needs an even patch_size.
      lora_rank: of the adapters on the blocks' matrices (models/lora.py); 0 means none.
      lora_alpha: an adapter's output is scaled by lora_alpha / lora_rank.
    """

    patch_size: int = 2
    width: int = 1024
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    token_hidden_ratio: int = 3
    r_embedding: bool = False
    qk_norm: bool = True
    swiglu: bool = True
    rotary: bool = True
    rms_norm: bool = True
    rescale_positions: bool = True
    swiglu_multiple: int = 1
    detail_width: int = 0
    detail_blocks: int = 2
    detail_stem_blocks: int = 1
    pixel_width: int = 0
    remove_weave: bool = False
    lora_rank: int = 0
    lora_alpha: float = 16.0


@dataclasses.dataclass(frozen=True)
class LightningDiTSettings(LightningDiTArchitecture):
    """All settings that define the network's function and its parameters' shapes.

    Attributes besides those of `LightningDiTArchitecture`; the other networks determine them:
      latent_channels: channels of one latent; the network reads a pair of them.
      latent_size: side of the training grid in latent pixels; rotary positions span it.
      token_width: channels of the visual tokens, or None for a network without them.
      pixel_scale: pixels on the side of a latent's pixel, if pixel_width is not 0.
    """

    latent_channels: int = 4
    latent_size: int = 64
    token_width: int | None = 768
    pixel_scale: int = 1

    @classmethod
    def vosr_0_5b(cls, **changes: Any) -> "LightningDiTSettings":
        """The released 0.5B network: SD 2.1 latents, DINOv2 ViT-B tokens, 512 px."""
        return cls(**changes)

    @classmethod
    def vosr_1_4b(cls, **changes: Any) -> "LightningDiTSettings":
        """The released 1.4B network: Qwen-Image latents, DINOv2 ViT-L tokens, 512 px."""
        sizes = dict(latent_channels=16, width=1536, depth=36, heads=24, token_width=1024)
        return cls(**(sizes | changes))

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    @property
    def swiglu_width(self) -> int:
        """Hidden width of the SwiGLU before padding."""
        return int(2 / 3 * int(self.width * self.mlp_ratio))

    @property
    def padded_swiglu_width(self) -> int:
        """Hidden width of the SwiGLU as stored."""
        return math.ceil(self.swiglu_width / self.swiglu_multiple) * self.swiglu_multiple
