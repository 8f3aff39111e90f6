"""Distribution of the time t in training."""

import dataclasses
from typing import Literal

import jax
from jax import Array


@dataclasses.dataclass(frozen=True)
class TimeSettings:
    """Distribution of t in [0, 1].

    Attributes:
      distribution: "uniform", or "lognorm": t = sigmoid(sigma * n + mu), n standard normal.
      mu: of the lognorm.
      sigma: of the lognorm.
    """

    distribution: Literal["uniform", "lognorm"] = "uniform"
    mu: float = 0.0
    sigma: float = 1.0

    def draw(self, key: Array) -> Array:
        """Draw a value for `to_t`: uniform in [0, 1] or standard normal."""
        if self.distribution == "uniform":
            return jax.random.uniform(key)
        return jax.random.normal(key)

    def to_t(self, draw: Array) -> Array:
        """Convert draws of any shape to times."""
        if self.distribution == "uniform":
            return draw
        return jax.nn.sigmoid(self.sigma * draw + self.mu)
