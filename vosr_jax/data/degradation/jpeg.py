"""JPEG compression in two variants: the original's simulation, and the real library.

The original's simulation (BasicSR's DiffJPEG) takes a real-valued quality, rounds only the
coefficients, and uses the luma table transposed. "official" repeats that exactly, because the
released weights were trained on it. "libjpeg" writes and reads a real file in memory, as real
photos are compressed.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

# Annex K of the JPEG standard, [vertical frequency, horizontal frequency].
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMA_TABLE = np.full((8, 8), 99, np.float32)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# JFIF: RGB in 0..255 to luma and chroma (centred at 128), and back.
_TO_YCC = np.array(
    [
        [0.299, 0.587, 0.114, 0],
        [-0.168736, -0.331264, 0.5, 128],
        [0.5, -0.418688, -0.081312, 128],
    ]
)
_TO_RGB = np.array(
    [
        [1, 0, 1.402, -1.402 * 128],
        [1, -0.344136, -0.714136, (0.344136 + 0.714136) * 128],
        [1, 1.772, 0, -1.772 * 128],
    ]
)


def quality_factor(quality: float) -> float:
    """Factor on the tables: 50 / q below 50, else 2 - q / 50."""
    return 50 / quality if quality < 50 else 2 - quality / 50


@functools.cache
def dct_matrix() -> np.ndarray:
    """The [64, 64] orthonormal 8x8 DCT of flattened blocks: coefficients = block @ matrix.T."""
    frequency, sample = np.arange(8)[:, None], np.arange(8)[None, :]
    line = np.cos((2 * sample + 1) * frequency * np.pi / 16) / 2
    line[0] /= np.sqrt(2)
    return np.ascontiguousarray(np.kron(line, line).astype(np.float32))


def blocks(plane: np.ndarray) -> np.ndarray:
    """Split [H, W] into [H/8 * W/8, 64], blocks in row-major order."""
    height, width = plane.shape
    return plane.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 64)


def from_blocks(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Invert `blocks`."""
    grid = values.reshape(height // 8, width // 8, 8, 8)
    return grid.transpose(0, 2, 1, 3).reshape(height, width)


def quantized(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Quantize the DCT of a plane centred at 128: [H, W] -> [H/8 * W/8, 64] float32."""
    coefficients = (blocks(plane) - np.float32(128)) @ dct_matrix().T
    coefficients /= table.reshape(1, 64)
    return np.rint(coefficients, out=coefficients)


def _through_blocks(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    coefficients = quantized(plane, table)
    coefficients *= table.reshape(1, 64)
    values = coefficients @ dct_matrix()
    values += np.float32(128)
    return from_blocks(values, *plane.shape)


def planes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the luma and half-size chroma planes, black-padded to multiples of 16.

    Args:
      image: [H, W, 3] float32 in [0, 1].

    Returns:
      y [H', W'], cb and cr [H'/2, W'/2], float32 in 0..255.
    """
    height, width = image.shape[:2]
    pad = (-height) % 16, (-width) % 16
    if any(pad):
        image = cv2.copyMakeBorder(image, 0, pad[0], 0, pad[1], cv2.BORDER_CONSTANT, value=0)
    matrix = _TO_YCC.copy()
    matrix[:, :3] *= 255
    ycc = cv2.transform(image, matrix)
    chroma = np.ascontiguousarray(ycc[..., 1:])
    chroma = cv2.resize(chroma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    y = np.ascontiguousarray(ycc[..., 0])
    return y, np.ascontiguousarray(chroma[..., 0]), np.ascontiguousarray(chroma[..., 1])


def quantization_tables(quality: float) -> tuple[np.ndarray, np.ndarray]:
    """The official tables of luma (transposed) and chroma at a quality, both unrounded."""
    factor = np.float32(quality_factor(quality))
    return LUMA_TABLE.T * factor, CHROMA_TABLE * factor


def compress(image: np.ndarray, quality: float) -> np.ndarray:
    """Apply the official simulation of JPEG.

    Args:
      image: [H, W, 3] float32; clipped to [0, 1] first.
      quality: a real number in (0, 100).

    Returns:
      [H, W, 3] float32 in [0, 1], not rounded to grey levels.
    """
    height, width = image.shape[:2]
    y, cb, cr = planes(np.clip(image, 0, 1))
    luma_table, chroma_table = quantization_tables(quality)
    y = _through_blocks(y, luma_table)
    chroma = np.stack([_through_blocks(c, chroma_table) for c in (cb, cr)], axis=-1)
    chroma = cv2.resize(chroma, y.shape[::-1], interpolation=cv2.INTER_NEAREST)
    ycc = np.dstack([y, chroma])[:height, :width]
    rgb = cv2.transform(ycc, _TO_RGB / 255)
    return np.clip(rgb, 0, 1, out=rgb)


def compress_with_libjpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """Write and read a real JPEG file in memory, 4:2:0.

    Args:
      image: [H, W, 3] float32; clipped to [0, 1] and rounded to 256 levels first.
      quality: rounded to an integer.

    Returns:
      [H, W, 3] float32 in [0, 1], on the 256 grey levels.
    """
    levels = np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)
    written, data = cv2.imencode(
        ".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(round(quality))]
    )
    if not written:
        raise RuntimeError("OpenCV was built without JPEG support")
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None, "OpenCV cannot read the JPEG file it has just written"
    return decoded[..., ::-1].astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression; variant is "official" or "libjpeg"."""

    quality: float
    variant: str

    def apply(self, image: np.ndarray) -> np.ndarray:
        apply = compress if self.variant == "official" else compress_with_libjpeg
        return apply(image, self.quality)
