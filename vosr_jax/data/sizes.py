"""Size of a source's images, estimated from a few of them."""

from PIL import Image

from vosr_jax.data.pictures import UnreadablePicture
from vosr_jax.data.sources.source import Source

_LOOKED_AT = 16


def megapixels(source: Source, looked_at: int = _LOOKED_AT) -> tuple[float, int] | None:
    """Mean size of evenly spaced images; for most formats only the headers are decoded.

    Args:
      source: an open source.
      looked_at: most images to look at.

    Returns:
      (megapixels per image, number of images looked at); None if none can be read.
    """
    count = len(source)
    positions = sorted({i * count // looked_at for i in range(looked_at)} if count else ())
    sizes = [size for position in positions if (size := _pixels(source, position))]
    return (sum(sizes) / len(sizes) / 1e6, len(sizes)) if sizes else None


def _pixels(source: Source, position: int) -> int:
    """Pixels of an image; 0 if it cannot be read, which the run reports when it gets there."""
    try:
        with source.open(position) as file, Image.open(file) as image:
            return image.width * image.height
    # A decoder may raise any error for data that is not an image file, such as raw arrays.
    except Exception:
        try:
            height, width = source.read(position).shape[:2]
        except (UnreadablePicture, OSError):
            return 0
        return height * width
