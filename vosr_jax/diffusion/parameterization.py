"""The endpoint of the flow, and the meaning of the network's output.

VOSR: the endpoint of the flow is the hr latent and the network predicts the velocity. A small
network on pixels learns better with other settings. The endpoint is the scaled residual
(hr - lq) / residual_scale. The network predicts the endpoint, which determines the velocity; the
endpoint is a low-dimensional target, while noise fills all of a patch's channels (arXiv
2511.13720). Or it predicts the error F of the best linear guess from z_t, at unit variance (the
preconditioning of arXiv 2206.00364, for z_t = (1 - t) x + t eps and x of unit variance):

    endpoint = (1 - t) / d z_t + t / sqrt(d) F,    velocity = (2 t - 1) / d z_t - F / sqrt(d),
    d = (1 - t)^2 + t^2.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

# (condition, z_t, t, visual_tokens, r) -> [B, h, w, C]
VelocityFn = Callable[[Array, Array, Array, Array | None, Array | None], Array]


@dataclasses.dataclass(frozen=True)
class Parameterization:
    """The flow's endpoint and the network's output.

    Attributes:
      endpoint: "hr", the latent itself, or "residual", (hr - lq) / residual_scale.
      prediction: "velocity" (eps - endpoint), "endpoint", or "preconditioned" (F above).
      residual_scale: about the deviation of hr - lq in latent units.
      smallest_t: with prediction "endpoint" the velocity is (z_t - endpoint) / max(t, this).
    """

    endpoint: Literal["hr", "residual"] = "hr"
    prediction: Literal["velocity", "endpoint", "preconditioned"] = "velocity"
    residual_scale: float = 0.15
    smallest_t: float = 0.05

    def to_endpoint(self, hr_latent: Array, lq_latent: Array) -> Array:
        """The flow's endpoint at t = 0, [B, h, w, C]."""
        if self.endpoint == "hr":
            return hr_latent
        return (hr_latent - lq_latent) / self.residual_scale

    def to_latent(self, endpoint: Any, lq_latent: Any) -> Any:
        """The inverse of `to_endpoint`, for arrays of JAX or NumPy."""
        if self.endpoint == "hr":
            return endpoint
        return lq_latent + self.residual_scale * endpoint

    def _divisor(self, t: Array) -> Array:
        smallest = self.smallest_t if self.prediction == "endpoint" else 0.0
        return jnp.maximum(t, smallest)[:, None, None, None]

    def velocity_target(self, endpoint: Array, noise: Array, z_t: Array, t: Array) -> Array:
        """eps - endpoint; with prediction "endpoint", the velocity of the true endpoint."""
        if self.prediction != "endpoint":
            return noise - endpoint
        return (z_t - endpoint) / self._divisor(t)

    def predicted_endpoint(self, velocity: Array, z_t: Array, t: Array) -> Array:
        """The endpoint that a velocity at (z_t, t) points at: z_t - t v."""
        return z_t - self._divisor(t) * velocity

    def velocity(self, output: Array, z_t: Array, t: Array) -> Array:
        """Convert a network's output at (z_t, t) to the velocity.

        A student's average velocity over [r, t] is computed in the same way: with prediction
        "endpoint" it points from z_t at its endpoint, where the straight line meets t = 0.
        """
        if self.prediction == "velocity":
            return output
        if self.prediction == "endpoint":
            return (z_t - output) / self._divisor(t)
        time = t[:, None, None, None]
        d = (1 - time) ** 2 + time**2
        return (2 * time - 1) / d * z_t - output / jnp.sqrt(d)

    def velocity_fn(self, network: VelocityFn) -> VelocityFn:
        """Wrap a network as a velocity function."""
        if self.prediction == "velocity":
            return network

        def velocity(
            condition: Array,
            z_t: Array,
            t: Array,
            visual_tokens: Array | None = None,
            r: Array | None = None,
        ) -> Array:
            return self.velocity(network(condition, z_t, t, visual_tokens, r), z_t, t)

        return velocity
