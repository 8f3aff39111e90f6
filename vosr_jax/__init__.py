"""VOSR, a generative image restorer and upscaler trained on images alone, in JAX."""

from vosr_jax.version import __version__

__all__ = ["Upscaler", "__version__"]


def __getattr__(name: str):
    if name == "Upscaler":
        # Loads NumPy and Pillow, which the command line's start does without.
        from vosr_jax.restoration.upscaler import Upscaler

        return Upscaler
    raise AttributeError(f"module 'vosr_jax' has no attribute {name!r}")
