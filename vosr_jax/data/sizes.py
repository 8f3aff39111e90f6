"""How large a source's pictures are, from a few of them."""

from PIL import Image

from vosr_jax.data.pictures import UnreadablePicture
from vosr_jax.data.sources.source import Source

_LOOKED_AT = 16


def megapixels(source: Source, looked_at: int = _LOOKED_AT) -> tuple[float, int] | None:
    """Mean size of some pictures at even distances; of most kinds the headers alone are decoded.

    Args:
      source: open.
      looked_at: at most so many.

    Returns:
      (millions of pixels a picture, how many were looked at); None where none can be read.
    """
    count = len(source)
    positions = sorted({i * count // looked_at for i in range(looked_at)} if count else ())
    sizes = [size for position in positions if (size := _pixels(source, position))]
    return (sum(sizes) / len(sizes) / 1e6, len(sizes)) if sizes else None


def _pixels(source: Source, position: int) -> int:
    """0 where the picture can't be read; the run says so when it comes to it."""
    try:
        with source.open(position) as file, Image.open(file) as image:
            return image.width * image.height
    # Whatever a decoder raises for what is no picture file, raw arrays among them.
    except Exception:
        try:
            height, width = source.read(position).shape[:2]
        except (UnreadablePicture, OSError):
            return 0
        return height * width
