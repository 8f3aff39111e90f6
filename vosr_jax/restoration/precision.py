"""The number format a denoiser computes in, and a guard against what a short one may do.

"float32": everything, with matrix products at the hardware's highest precision. "float16" and
"mixed": matrix products in float16 or bfloat16; residual stream, norms, modulation and gates in
float32. "bfloat16": everything in bfloat16, parameters and time too, as many do it for speed.
docs/sampling.md has what each costs in grey levels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vosr_jax.diffusion.branches import Branches, Evaluation
from vosr_jax.models.lightning_dit import LightningDiT

_PRODUCTS = {"float16": jnp.float16, "mixed": jnp.bfloat16, "bfloat16": jnp.bfloat16}


def at_precision(denoiser: LightningDiT, precision: str) -> LightningDiT:
    """The denoiser, computing as named; its parameters are cast once where that is what it reads.

    Args:
      denoiser: in float32.
      precision: one of `precisions.PRECISIONS` but "auto".
    """
    if precision == "float32":
        return denoiser.computing_in(jnp.float32)
    short = _PRODUCTS[precision]
    everything = precision == "bfloat16"
    other = denoiser.computing_in(short, *((short, short) if everything else ()))
    # The blocks' matrices are nearly all of the parameters and read at every step.
    for part in (other,) if everything else _matrices(other):
        nnx.update(part, jax.tree.map(lambda x: x.astype(short), nnx.state(part)))
    return other


def _matrices(denoiser: LightningDiT) -> list[nnx.Module]:
    blocks = denoiser.blocks
    layers = [blocks.attn.qkv, blocks.attn.proj]
    if blocks.cross_attn is not None:
        cross = blocks.cross_attn
        layers += [cross.query, cross.key, cross.value, cross.proj]
    return [*layers, blocks.mlp]


class Guarded:
    """Branches in short numbers, whose rows that are not finite are computed again in float32.

    Args:
      fast: the branches in short numbers.
      exact: the same in float32; asked only where needed, so let it remember little.
    """

    def __init__(self, fast: Branches, exact: Branches):
        self._fast, self._exact = fast, exact

    def remember(self, visual_tokens: Array | None) -> tuple:
        """What either remembers."""
        return self._fast.remember(visual_tokens), self._exact.remember(visual_tokens)

    def constants(self) -> tuple:
        """Those of either."""
        return self._fast.constants(), self._exact.constants()

    def times(self, t: Array, r: Array | None) -> tuple:
        """What either makes of the times."""
        return self._fast.times(t, r), self._exact.times(t, r)

    def evaluate(
        self, condition, weak_condition, noisy, time, memory, constants, extent=None
    ) -> Evaluation:
        """The fast answer, with the exact one in rows where the fast one is not finite."""
        latents = condition, weak_condition, noisy
        memory, constants = memory or (None, None), constants or (None, None)
        made = self._fast.evaluate(*latents, time[0], memory[0], constants[0], extent)
        answers = made.full, made.weak
        # A missing weak answer is no leaf.
        finite = [jnp.isfinite(x).all((1, 2, 3)) for x in jax.tree.leaves(answers)]
        bad = ~jnp.stack(finite).all(0)

        def mended() -> tuple[Array, Array | None]:
            again = self._exact.evaluate(*latents, time[1], memory[1], constants[1], extent)
            rows = bad[:, None, None, None]
            exact = again.full, again.weak
            return jax.tree.map(lambda x, y: jnp.where(rows, x, y), exact, answers)

        full, weak = jax.lax.cond(jnp.any(bad), mended, lambda: answers)
        return Evaluation(full, weak, bad)
