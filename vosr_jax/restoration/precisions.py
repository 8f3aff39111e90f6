"""Names of number formats, and the best one per platform; docs/sampling.md has the figures."""

from vosr_jax.errors import UserError

PRECISIONS = ("float32", "float16", "mixed", "bfloat16", "auto")
AUTOENCODER_PRECISIONS = ("float32", "float16", "bfloat16", "auto")

# Short formats save no time on CPU. A GPU multiplies float16 and bfloat16 at the same rate, and
# float16 is closer to float32. A TPU multiplies bfloat16 only.
_DENOISER = {"cpu": "float32", "gpu": "float16", "tpu": "mixed"}
_AUTOENCODER = {"cpu": "float32", "gpu": "float16", "tpu": "float32"}


def settle(precision: str, autoencoder_precision: str, platform: str) -> tuple[str, str]:
    """Resolve "auto" in the two format names for a platform.

    Args:
      precision: of the denoiser, one of PRECISIONS.
      autoencoder_precision: one of AUTOENCODER_PRECISIONS.
      platform: "cpu", "gpu" or "tpu".

    Raises:
      UserError: a name is unknown.
    """
    chosen = []
    for key, name, known, automatic in (
        ("precision", precision, PRECISIONS, _DENOISER),
        ("autoencoder_precision", autoencoder_precision, AUTOENCODER_PRECISIONS, _AUTOENCODER),
    ):
        if name not in known:
            raise UserError(f"{key} '{name}' is unknown; choose {', '.join(known)}")
        chosen.append(automatic.get(platform, "float32") if name == "auto" else name)
    return chosen[0], chosen[1]
