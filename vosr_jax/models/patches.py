"""Convert images or latents to tokens, one per square. NumPy arrays stay NumPy arrays."""

from jax import Array


def patchify(x: Array, patch_size: int) -> Array:
    """Convert [B, H, W, C] to tokens [B, H/p * W/p, p * p * C], row by row."""
    batch, height, width, channels = x.shape
    p = patch_size
    x = x.reshape(batch, height // p, p, width // p, p, channels)
    return x.swapaxes(2, 3).reshape(batch, height * width // p**2, p * p * channels)


def unpatchify(x: Array, grid: tuple[int, int], patch_size: int) -> Array:
    """The inverse of `patchify` for a grid of (rows, columns) tokens."""
    rows, columns = grid
    p = patch_size
    x = x.reshape(x.shape[0], rows, columns, p, p, -1)
    return x.swapaxes(2, 3).reshape(x.shape[0], rows * p, columns * p, -1)
