"""The device's attention against the plain formula: error, time, and what a gradient keeps.

    python -m benchmarks.accelerator.attention_kernels OUT.json [--timed] [--dry]

Inputs are in half precision. Errors are the largest differences from the formula in float32, over
its largest value; the formula in half precision stands beside them, since its error is what the
format costs. `forward_runs` counts a fused kernel's forward pass in a gradient whose block is
rematerialized but for attention (`remat=attention`): once is right, 0 means that no kernel ran.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.accelerator.clock import milliseconds
from benchmarks.accelerator.record import Record
from vosr_jax.compilation_cache import use_compilation_cache
from vosr_jax.models.attention.dispatch import (
    Attention,
    attention_on,
    keep_attention,
    plain_attention,
)

# Rows, positions, heads, width of a head.
_SHAPES = {
    "0.5B": (8, 1024, 16, 64),
    "1.4B": (8, 1024, 24, 64),
    "DINOv2 ViT-B": (8, 1025, 12, 64),
}
_DRY = {"even": (1, 64, 2, 16), "odd": (1, 65, 2, 16)}
_KERNEL = "dot_product_attention_fwd_wrapper["

Inputs = tuple[Array, Array, Array]


def _loss(attention: Attention, weight: Array) -> Callable[..., Array]:
    def loss(query: Array, key: Array, value: Array) -> Array:
        return jnp.sum(attention(query, key, value).astype(jnp.float32) * weight)

    return loss


def _gradient(attention: Attention, weight: Array) -> Callable[..., tuple[Array, ...]]:
    return jax.grad(_loss(attention, weight), argnums=(0, 1, 2))


def _error(ours: Any, exact: Any) -> float:
    """The largest over all arrays."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True)
    errors = [jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max() for a, b in pairs]
    return float(jnp.stack(errors).max())


def compare(shape: tuple[int, ...], dtype: str, *, timed: bool) -> dict[str, Any]:
    """All figures of a shape in a format; times only where nothing else runs on the device."""
    rows, positions, heads, width = shape
    keys = jax.random.split(jax.random.key(0), 4)
    size = (rows, positions, heads, width)
    inputs: Any = [jax.random.normal(key, size).astype(dtype) for key in keys[:3]]
    weight = jax.random.normal(keys[3], size)
    exact_inputs = [x.astype(jnp.float32) for x in inputs]
    exact = jax.jit(plain_attention)(*exact_inputs)
    exact_gradient = jax.jit(_gradient(plain_attention, weight))(*exact_inputs)
    found: dict[str, Any] = {}
    best = attention_on(jax.default_backend())
    for suffix, attention in (("", best), ("_formula", plain_attention)):
        forward, gradient = jax.jit(attention), jax.jit(_gradient(attention, weight))
        found["forward_error" + suffix] = _error(forward(*inputs), exact)
        found["gradient_error" + suffix] = _error(gradient(*inputs), exact_gradient)
        if timed:
            found["forward_ms" + suffix] = milliseconds(partial(forward, *inputs))
            found["gradient_ms" + suffix] = milliseconds(partial(gradient, *inputs))
    kept = jax.checkpoint(best, policy=keep_attention())
    trace = str(jax.make_jaxpr(_gradient(kept, weight))(*inputs))
    again = _error(jax.jit(_gradient(kept, weight))(*inputs), exact_gradient)
    return found | {"forward_runs": trace.count(_KERNEL), "gradient_error_kept": again}


def main() -> None:
    """Write one figure a shape and format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    record = Record(options.out)
    record.note_machine()
    use_compilation_cache()
    for name, shape in (_DRY if options.dry else _SHAPES).items():
        for dtype in ("bfloat16", "float16"):
            title = f"attention, {name}, {dtype}"
            record.measure(title, partial(compare, shape, dtype, timed=options.timed))


if __name__ == "__main__":
    main()
