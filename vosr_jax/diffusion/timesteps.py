"""Distributions of the times in training: t, and distillation's intervals [r, t]."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.noise import draw_rows

# Purposes of a row's draws; lower numbers belong to flow matching and the frozen networks.
_PAIR, _BETA, _KIND = 7, 8, 9


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


@dataclasses.dataclass(frozen=True)
class IntervalSettings:
    """Distribution of 0 <= r <= t <= 1.

    Attributes:
      time: distribution of two draws; t is the larger one.
      end: "beta": r = t (1 - b) with b of Beta(alpha, beta) (official vosr.py, sample_t_r_v1);
        "pair": r is the smaller of the two draws (MeanFlow).
      alpha: of the Beta distribution.
      beta: of the Beta distribution.
      instant_share: share of rows with r = t, where average and instantaneous velocity agree.
      one_step_share: share of rows with t = 1 and r = 0, the student's one step at sampling.
    """

    time: TimeSettings = TimeSettings()
    end: Literal["beta", "pair"] = "beta"
    alpha: float = 1.0
    beta: float = 1.0
    instant_share: float = 0.0
    one_step_share: float = 0.0

    def draw(self, rows: Array) -> dict[str, Array]:
        """Draw the inputs of `interval`, from a separate stream of each row's key.

        Args:
          rows: [B] keys.

        Returns:
          time_pair_uniform [B, 2] (normal draws if `time` is a lognorm); interval_beta [B]
          with end "beta"; interval_kind_uniform [B] if a share is not 0.
        """

        def pair(key: Array) -> Array:
            return jax.vmap(self.time.draw)(jax.random.split(key))

        draws = {"time_pair_uniform": draw_rows(rows, _PAIR, pair)}
        if self.end == "beta":
            draws["interval_beta"] = draw_rows(rows, _BETA, self._draw_beta)
        if self.instant_share or self.one_step_share:
            draws["interval_kind_uniform"] = draw_rows(rows, _KIND, jax.random.uniform)
        return draws

    def _draw_beta(self, key: Array) -> Array:
        return jax.random.beta(key, self.alpha, self.beta)

    def interval(self, draws: dict[str, Array]) -> tuple[Array, Array]:
        """Convert draws to (t [B], r [B])."""
        pair = self.time.to_t(draws["time_pair_uniform"])
        t = jnp.max(pair, axis=1)
        r = t * (1 - draws["interval_beta"]) if self.end == "beta" else jnp.min(pair, axis=1)
        if self.instant_share or self.one_step_share:
            kind = draws["interval_kind_uniform"]
            r = jnp.where(kind < self.instant_share, t, r)
            one_step = kind >= 1 - self.one_step_share
            t, r = jnp.where(one_step, 1.0, t), jnp.where(one_step, 0.0, r)
        return t, r
