"""Similarity between the encoder's tokens and the features of a denoiser's blocks.

Tokens and blocks differ in width, so their vectors have no cosine. The figure compares which
positions each finds similar: it is the cosine between the two centred matrices of inner products
over positions, linear CKA (arXiv 1905.00414), 0 to 1.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vosr_jax.evaluation.pairs import EvalPair, enlarge
from vosr_jax.restoration.inputs import computed_side, mirror
from vosr_jax.restoration.model import RestorationModel


def alignment(a: Array, b: Array) -> Array:
    """Compute linear CKA of two sets of features at the same positions.

    Args:
      a: [N, D] float.
      b: [N, E] float.

    Returns:
      [] in 0 to 1; 0 if one of them is constant over positions.
    """
    a, b = (x - jnp.mean(x, 0) for x in (a.astype(jnp.float32), b.astype(jnp.float32)))
    together = jnp.sum((a.T @ b) ** 2)
    lengths = jnp.linalg.norm(a.T @ a) * jnp.linalg.norm(b.T @ b)
    return jnp.where(lengths > 0, together / jnp.where(lengths > 0, lengths, 1.0), 0.0)


def token_figures(model: RestorationModel) -> Callable[[EvalPair], dict[str, float]] | None:
    """Make case -> {"token_similarity": mean over the blocks}; None for a model without tokens.

    The denoiser is called as in the first step: full condition, pure noise, t = 1. The tokens are
    resized bilinearly to the blocks' grid. Each case is computed once, since the sampler settings
    do not change it.
    """
    if model.encoder is None:
        return None
    graph, state = nnx.split(model.denoiser)
    known: dict[str, dict[str, float]] = {}

    def figures(case: EvalPair) -> dict[str, float]:
        if case.name not in known:
            known[case.name] = {"token_similarity": asked(case)}
        return known[case.name]

    def asked(case: EvalPair) -> float:
        rows, columns = (computed_side(side, model.multiple) for side in case.size)
        lq = enlarge(case.source, case.size).astype(np.float32) / 255
        lq = mirror(lq, (rows, columns)) * 2 - 1
        latent = jnp.asarray(model.encode(lq[None], None))
        tokens = model.visual_tokens(lq[None])
        r = jnp.zeros(1) if model.sampler.r_input else None
        return float(_similarity(graph, state, latent, tokens, r))

    return figures


@partial(jax.jit, static_argnums=0)
def _similarity(graph, state, latent: Array, tokens: Array, r: Array | None) -> Array:
    denoiser = nnx.merge(graph, state)
    noise = jax.random.normal(jax.random.key(0), latent.shape)
    time = denoiser.time_features(jnp.ones(1), r)
    context = denoiser.token_context(tokens)
    blocks = denoiser.block_outputs(latent, noise, time, context)[:, 0]
    side = int(round(tokens.shape[1] ** 0.5))
    grid = tokens[0].reshape(side, side, -1)
    patch = denoiser.settings.patch_size
    size = (latent.shape[1] // patch, latent.shape[2] // patch, grid.shape[-1])
    seen = jax.image.resize(grid, size, "linear").reshape(-1, size[-1])
    return jnp.mean(jax.vmap(lambda block: alignment(seen, block))(blocks))
