"""Flow matching with restoration guidance: the multi-step objective (official vosr.py, loss_fm).

z_t = (1 - t) x + t eps, target eps - x, mean squared error; x is the hr latent. A share of the
samples gets the weak condition instead of the full one.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.guidance import GuidanceSettings, training_condition
from vosr_jax.diffusion.noise import batch_key, draw_rows, normal_rows, row_keys
from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn
from vosr_jax.diffusion.timesteps import TimeSettings

# Purposes of a row's draws; 0 and 1 belong to the posteriors (training/frozen.py).
_TIME, _STRENGTH, _NOISE, _DROPOUT, _CONDITION_NOISE = 2, 3, 4, 5, 6


# Error at which "charbonnier" changes from a square to a slope.
_CORNER = 0.01
# Side, in squares, of the neighbourhoods that `weave` averages over.
_NEIGHBOURHOOD = 8


@dataclasses.dataclass(frozen=True)
class FlowMatchingSettings:
    """Settings of the objective.

    Attributes:
      time: distribution of t.
      guidance: how the conditions are made.
      parameterization: what the flow transports and the network predicts.
      perceptual_weight: 0 in VOSR. Above 0 it adds `endpoint_distance` of the endpoint that the
        velocity points at, times (1 - t)^perceptual_power.
      perceptual_power: 0 weights the endpoint equally at every t, as sampling in few steps needs.
        Above 0 it weights it less near t = 1, where the endpoint is a mean of many images.
      penalty: of the velocity's error e: "square", e^2, as officially; or "charbonnier",
        sqrt(e^2 + 0.01^2), whose minimum is nearer to a median and keeps edges sharper.
      weave_weight: weight of `weave` of the endpoint's error, for latents of rearranged pixels.
      keep_endpoint: whether the metrics include "endpoint_latent", the latent that the velocity
        points at, for loss terms that are computed elsewhere.
    """

    time: TimeSettings = TimeSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    parameterization: Parameterization = Parameterization()
    perceptual_weight: float = 0.0
    perceptual_power: float = 0.0
    penalty: Literal["square", "charbonnier"] = "square"
    weave_weight: float = 0.0
    keep_endpoint: bool = False


def weave(error: Array) -> Array:
    """Measure the regular pattern in an error: how its local means vary over a square's pixels.

    In a latent of rearranged pixels the channels are a square's pixels. An error that they share
    over a neighbourhood repeats from square to square. On plain areas the eye sees even a faint
    one as a weave. No image contains such a pattern.

    Args:
      error: [B, h, w, C]; C is the pixels of a square times 3 colours, colours last.

    Returns:
      [B] mean square of the deviation of each pixel's local mean from the mean of all pixels, over
      neighbourhoods of 8 x 8 squares; a side that 8 does not divide is taken whole.
    """
    batch, height, width, channels = error.shape
    rows, columns = (_NEIGHBOURHOOD if n % _NEIGHBOURHOOD == 0 else n for n in (height, width))
    shape = (batch, height // rows, rows, width // columns, columns, channels // 3, 3)
    means = error.reshape(shape).mean((2, 4))
    return jnp.square(means - means.mean(3, keepdims=True)).mean((1, 2, 3, 4))


def draw(key: Array, batch: dict[str, Array], settings: FlowMatchingSettings) -> dict[str, Array]:
    """Draw all random numbers of one batch, by the names that `loss` reads.

    Args:
      key: the run's key.
      batch: "index" uint32 [B, 2], "step" [] and "lq_latent" [B, h, w, C].
      settings: distributions.

    Returns:
      time_draw, condition_strength_normal and condition_dropout_uniform [B], noise and
      condition_noise [B, h, w, C], weak_strength [].
    """
    rows = row_keys(key, batch["index"])
    low, high = settings.guidance.weak_strength_range
    weak = jax.random.uniform(batch_key(key, batch["step"]), minval=low, maxval=high)
    return draw_conditions(rows, batch["lq_latent"].shape[1:]) | {
        "time_draw": draw_rows(rows, _TIME, settings.time.draw),
        "weak_strength": weak,
    }


def draw_conditions(rows: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """Draw the random numbers that every objective needs.

    Args:
      rows: [B] keys.
      shape: of one latent.

    Returns:
      condition_strength_normal and condition_dropout_uniform [B], noise and condition_noise
      [B, h, w, C].
    """
    return {
        "condition_strength_normal": normal_rows(rows, _STRENGTH, ()),
        "noise": normal_rows(rows, _NOISE, shape),
        "condition_dropout_uniform": draw_rows(rows, _DROPOUT, jax.random.uniform),
        "condition_noise": normal_rows(rows, _CONDITION_NOISE, shape),
    }


def loss(
    velocity_fn: VelocityFn,
    batch: dict[str, Array],
    key: Array | None,
    settings: FlowMatchingSettings,
    *,
    teacher_fn: VelocityFn | None = None,
    draws: dict[str, Array] | None = None,
    endpoint_distance: Callable[[Array, dict[str, Array]], Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Mean penalty of the velocity's error.

    Args:
      velocity_fn: (condition, z_t, t, visual_tokens, r) -> velocity [B, h, w, C].
      batch: "hr_latent", "lq_latent" [B, h, w, C]; "visual_tokens" [B, N, D] if the network
        takes them; "index" and "step" unless draws are given.
      key: the run's key; not used if draws are given.
      settings: of the objective.
      teacher_fn: not used; other objectives have one.
      draws: the random numbers, as `draw` returns them.
      endpoint_distance: (latent, batch) -> [B], with perceptual_weight.

    Returns:
      (loss [], metrics): "loss_rows" [B] and "t" [B]; "perceptual_rows" if it has weight.
    """
    if draws is None:
        assert key is not None, "the run's key is needed where no draws are given"
        draws = draw(key, batch, settings)
    parameterization = settings.parameterization
    lq_latent = batch["lq_latent"]
    endpoint = parameterization.to_endpoint(batch["hr_latent"], lq_latent)
    condition, tokens = training_condition(
        lq_latent, batch.get("visual_tokens"), draws, settings.guidance
    )
    t = settings.time.to_t(draws["time_draw"])
    weight = t[:, None, None, None]
    z_t = (1 - weight) * endpoint + weight * draws["noise"]
    velocity = velocity_fn(condition, z_t, t, tokens, None)
    error = velocity - parameterization.velocity_target(endpoint, draws["noise"], z_t, t)
    penalty = error**2 if settings.penalty == "square" else jnp.sqrt(error**2 + _CORNER**2)
    rows = jnp.mean(penalty, axis=(1, 2, 3))
    metrics = {"loss_rows": rows, "t": t}
    total = jnp.mean(rows)
    pointed_at = parameterization.predicted_endpoint(velocity, z_t, t)
    if settings.weave_weight:
        total += settings.weave_weight * jnp.mean(weave(pointed_at - endpoint))
    predicted = parameterization.to_latent(pointed_at, lq_latent)
    if settings.keep_endpoint:
        metrics["endpoint_latent"] = predicted
    if endpoint_distance is not None and settings.perceptual_weight:
        metrics["perceptual_rows"] = endpoint_distance(predicted, batch)
        weights = settings.perceptual_weight * (1 - t) ** settings.perceptual_power
        total += jnp.mean(weights * metrics["perceptual_rows"])
    return total, metrics
