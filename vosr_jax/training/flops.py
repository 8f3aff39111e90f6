"""Floating-point operations of a traced function's products, loops counted by their lengths."""

import math
from collections.abc import Callable
from typing import Any

import jax


def product_flops(function: Callable, *arguments: Any) -> int:
    """Operations of all matrix products and convolutions of a call; a multiply-add is two.

    Args:
      function: anything that jax can trace.
      *arguments: arrays or their shapes.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        inner = math.prod(left[axis] for axis in contracted)
        return 2 * inner * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    if name == "scan":
        return parameters["length"] * _of_jaxpr(parameters["jaxpr"].jaxpr)
    if name == "cond":
        return max(_of_jaxpr(branch.jaxpr) for branch in parameters["branches"])
    if name == "pallas_call":
        raise ValueError("a kernel's work is not in its trace; count the plain formula instead")
    return sum(_of_jaxpr(inner) for inner in _inner(parameters))


def _inner(parameters: dict[str, Any]):
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item
