"""Every distillation objective on a problem whose one-step map is known.

    python benchmarks/toy_distillation.py [--steps 3000]

Data in two dimensions: x given c is normal with mean c and a fixed covariance S. Its velocity
field is known, and affine in the mean, so guidance only moves the mean: with weak strength w and
scale s to m = (s + (1 - s) w) c. The exact one-step map is then z_1 -> m + S^(1/2) z_1. Without a
teacher the full branch is the data's own velocity and the weak branch, which here knows c as
well, learns the same, so m = c.

A perceptron learns from random weights with each objective as the package has it; the table says
how far its one step lies from the exact one.
"""

import argparse
import datetime
import os
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.objectives import Settings, loss_of
from vosr_jax.diffusion.objectives.mean_flow import MeanFlowSettings
from vosr_jax.diffusion.objectives.rcgm import RCGMSettings
from vosr_jax.diffusion.objectives.shortcut import ShortcutSettings
from vosr_jax.diffusion.timesteps import IntervalSettings

ANGLE, DEVIATIONS = 0.5, (1.0, 0.3)
SCALE, WEAK = 0.5, 0.1
ROTATION = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
ROOT = jnp.asarray(ROTATION @ np.diag(DEVIATIONS) @ ROTATION.T, jnp.float32)
ROWS, WIDTH = 512, 128

# a = sigmoid(30) = 1: the full condition is c itself.
GUIDANCE = GuidanceSettings(drop_rate=0.2, condition_strength=(30.0, 0.0), scale=SCALE)
CASES: dict[str, tuple[Settings, bool]] = {
    "RCGM, teacher": (RCGMSettings(guidance=GUIDANCE, weak_strength=WEAK), True),
    "shortcut, teacher": (ShortcutSettings(guidance=GUIDANCE, weak_strength=WEAK), True),
    "shortcut, self": (ShortcutSettings(guidance=GUIDANCE, weak_strength=WEAK), False),
    "MeanFlow, teacher": (
        MeanFlowSettings(
            interval=IntervalSettings(end="pair", instant_share=0.25),
            guidance=GUIDANCE,
            weak_strength=WEAK,
        ),
        True,
    ),
    "MeanFlow, self": (
        MeanFlowSettings(
            interval=IntervalSettings(end="pair", instant_share=0.5),
            guidance=GUIDANCE,
            weak_strength=WEAK,
            # The adaptive weight expects errors of many channels, whose size tells little of
            # the noise in a sample's own velocity; in two dimensions it would favour the mode.
            power=0.0,
        ),
        False,
    ),
}


def exact_velocity(mean, z_t, t, visual_tokens=None, r=None) -> Array:
    """E[eps - x | z_t] where x is normal with this mean and covariance S; [B, 1, 1, 2] as all."""
    del visual_tokens, r
    covariance = ROOT @ ROOT
    time = t[:, None, None]
    spread = (1 - time) ** 2 * covariance + time**2 * jnp.eye(2)
    m, z = mean[:, 0, 0], z_t[:, 0, 0]
    centred = jnp.linalg.solve(spread, (z - (1 - t)[:, None] * m)[..., None])
    velocity = (time * jnp.eye(2) - (1 - time) * covariance) @ centred
    return (velocity[..., 0] - m)[:, None, None]


def exact_step(c: Array, noise: Array, has_teacher: bool) -> Array:
    """The one-step map from noise to data."""
    factor = SCALE + (1 - SCALE) * WEAK if has_teacher else 1.0
    return factor * c + noise @ ROOT


def new_network(key: Array) -> list[tuple[Array, Array]]:
    """A perceptron's layers; inputs are condition, tokens, z, and features of t and r."""
    sizes = (16, WIDTH, WIDTH, WIDTH, 2)
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b))
        for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]


def average_velocity(layers, condition, z_t, t, visual_tokens, r) -> Array:
    """u(z_t, t, r), [B, 1, 1, 2]."""
    z, c, tokens = z_t[:, 0, 0], condition[:, 0, 0], visual_tokens[:, 0]
    time = jnp.stack([t, t**2, r, r**2, t - r, t * r], 1)
    known = tokens[:, :1] ** 2 + tokens[:, 1:] ** 2 > 0
    waves = jnp.concatenate([jnp.sin(3 * t[:, None]), jnp.cos(3 * t[:, None])], 1)
    x = jnp.concatenate([z, c, tokens, time, waves, known, jnp.ones_like(known)], 1)
    for weights, bias in layers[:-1]:
        x = jax.nn.silu(x @ weights + bias)
    weights, bias = layers[-1]
    return (x @ weights + bias)[:, None, None]


def train(settings: Settings, has_teacher: bool, steps: int, seed: int = 0):
    """A student of this objective, and the seconds that it took."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    objective = loss_of(settings)

    def batch(key: Array, step: Array) -> dict[str, Array]:
        keys = jax.random.split(key)
        c = jax.random.normal(keys[0], (ROWS, 1, 1, 2))
        x = c + jax.random.normal(keys[1], (ROWS, 1, 1, 2)) @ ROOT
        index = jnp.stack([jnp.full(ROWS, step), jnp.arange(ROWS)], 1).astype(jnp.uint32)
        return {"hr_latent": x, "lq_latent": c, "visual_tokens": c[:, 0], "index": index}

    def update(carry, step):
        layers, state, average = carry

        def loss(layers):
            def student(*inputs):
                return average_velocity(layers, *inputs)

            pictures = batch(jax.random.fold_in(jax.random.key(seed + 1), step), step)
            teacher = exact_velocity if has_teacher else None
            key = jax.random.key(seed)
            return objective(student, pictures, key, settings, teacher_fn=teacher)[0]

        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        layers = optax.apply_updates(layers, updates)
        average = jax.tree.map(lambda a, p: 0.99 * a + 0.01 * p, average, layers)
        return (layers, state, average), None

    @jax.jit
    def run(layers):
        carry = (layers, optimizer.init(layers), layers)
        return jax.lax.scan(update, carry, jnp.arange(steps))[0][2]

    started = time.perf_counter()
    layers = jax.block_until_ready(run(new_network(jax.random.key(seed))))
    return layers, time.perf_counter() - started


def judge(layers, has_teacher: bool, rows: int = 20_000) -> dict[str, float]:
    """Distances of the student's one step from the exact one, over fresh noise and conditions."""
    keys = jax.random.split(jax.random.key(99))
    c, noise = (jax.random.normal(key, (rows, 1, 1, 2)) for key in keys)
    ones = jnp.ones(rows)
    ours = noise - average_velocity(layers, c, noise, ones, c[:, 0], 0 * ones)
    exact = exact_step(c, noise, has_teacher)
    mean = exact - noise @ ROOT
    spread = np.cov(np.asarray(ours - mean)[:, 0, 0].T)
    return {
        "map": float(jnp.sqrt(jnp.mean((ours - exact) ** 2))),
        "mean": float(jnp.abs((ours - exact).mean((0, 1, 2))).max()),
        "covariance": float(np.abs(spread - np.asarray(ROOT @ ROOT)).max()),
    }


def main() -> None:
    """Print one table and its machine."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    steps = parser.parse_args().steps
    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}  {machine}, {os.cpu_count()} cores")
    print(f"{steps} steps of {ROWS}; covariance entries of the truth up to ", end="")
    print(f"{float(jnp.abs(ROOT @ ROOT).max()):.2f}\n")
    print("| objective | error of the map | of the mean | of the covariance | seconds |")
    print("|---" * 5 + "|")
    for name, (settings, has_teacher) in CASES.items():
        layers, seconds = train(settings, has_teacher, steps)
        errors = judge(layers, has_teacher)
        figures = " | ".join(f"{errors[key]:.3f}" for key in ("map", "mean", "covariance"))
        print(f"| {name} | {figures} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
