"""The way from noise to latent, as a row of equal pieces of work.

One evaluation of the velocity may need several questions to the network, one a batch of tiles.
All questions of all steps are numbered through, and `advance` does those from one number to
another in one loop: the whole sampling in a single call, or as many calls of the same compiled
program as a person watching wants to see progress. Questions before and after a change of the
guidance belong to different programs (`SamplerSettings.runs`).
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.branches import Branches
from vosr_jax.diffusion.conditions import weak_condition
from vosr_jax.diffusion.parameterization import Parameterization

if TYPE_CHECKING:
    from vosr_jax.diffusion.sampling import SamplerSettings


class Parts(Protocol):
    """How a latent [B, h, w, C] is cut for the network and put together again."""

    @property
    def count(self) -> int:
        """Questions an evaluation."""

    def tokens(self, visual_tokens: Array) -> Array:
        """[count, rows, N, D], the tokens of every part's rows."""

    def take(self, latent: Array, part: Array) -> Array:
        """One part, [rows, h', w', C]."""

    def add(self, total: Array, values: Array, part: Array) -> Array:
        """The latent-sized total with a part's values added."""

    def mean(self, total: Array) -> Array:
        """What the total of all parts' values means."""

    def counted(self, rows: Array, part: Array) -> Array:
        """[] how many of a part's marked rows [rows] stand for something."""


class Whole:
    """The latent as its only part."""

    count = 1

    def tokens(self, visual_tokens: Array) -> Array:
        """[1, B, N, D]."""
        return visual_tokens[None]

    def take(self, latent: Array, part: Array) -> Array:
        """All of it."""
        return latent

    def add(self, total: Array, values: Array, part: Array) -> Array:
        """The values: nothing else is added."""
        return values

    def mean(self, total: Array) -> Array:
        """The total."""
        return total

    def counted(self, rows: Array, part: Array) -> Array:
        """All marked rows."""
        return jnp.sum(rows)


class Task(NamedTuple):
    """Everything that stays the same on the way.

    Attributes:
      lq_latent: [B, h, w, C].
      times: [steps + 1] from 1 to 0.
      features: what the network makes of the times, leading axis steps.
      memory: what it remembers of the visual tokens, leading axis parts; None without.
      constants: of the weak branch, or None.
      guidance_scale, weak_strength: [].
    """

    lq_latent: Array
    times: Array
    features: Any
    memory: Any
    constants: Any
    guidance_scale: Array
    weak_strength: Array


class Walk(NamedTuple):
    """Where the sampling stands.

    Attributes:
      z: [B, h, w, C] at the present step's time.
      total: the velocities that the present step's parts have given so far.
      repeated: [] int32, rows of the network computed a second time so far.
    """

    z: Array
    total: Array
    repeated: Array


def start(noise: Array) -> Walk:
    """The walk at t = 1."""
    return Walk(noise, jnp.zeros(noise.shape, jnp.float32), jnp.zeros((), jnp.int32))


def prepare(
    branches: Branches,
    parts: Parts,
    settings: "SamplerSettings",
    lq_latent: Array,
    visual_tokens: Array | None,
) -> Task:
    """Compute what all questions share."""
    times = jnp.asarray(settings.times())
    ends = times[1:] if settings.r_input else None
    memory = None
    if visual_tokens is not None:
        of_parts = parts.tokens(visual_tokens)
        if parts.count == 1:
            memory = jax.tree.map(lambda x: x[None], branches.remember(of_parts[0]))
        else:
            memory = jax.lax.map(branches.remember, of_parts)
    guided = any(guided for guided, _, _ in settings.runs())
    return Task(
        lq_latent,
        times,
        branches.times(times[:-1], ends),
        memory,
        branches.constants() if guided else None,
        jnp.float32(settings.guidance_scale),
        jnp.float32(settings.weak_strength),
    )


def advance(
    branches: Branches,
    parts: Parts,
    form: Parameterization,
    task: Task,
    walk: Walk,
    first: int | Array,
    last: int | Array,
    *,
    guided: bool,
) -> Walk:
    """Do the questions from number `first` up to, not including, number `last`.

    Args:
      branches: the network.
      parts: how the latent is cut.
      form: what the network predicts.
      task: from `prepare`.
      walk: from `start` or an earlier call, having done all before `first`.
      first, last: question i belongs to step i // parts.count.
      guided: whether these questions are of both branches.
    """

    def ask(question: Array, walk: Walk) -> Walk:
        step, part = question // parts.count, question % parts.count
        t, t_next = task.times[step], task.times[step + 1]
        time = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, step, 1), task.features)
        memory = jax.tree.map(lambda x: x[0 if parts.count == 1 else part], task.memory)
        condition, noisy = parts.take(task.lq_latent, part), parts.take(walk.z, part)
        weak = weak_condition(condition, None, task.weak_strength)[0] if guided else None
        made = branches.evaluate(condition, weak, noisy, time, memory, task.constants)
        velocity = form.velocity(made.full, noisy, jnp.full(len(noisy), t))
        if made.weak is not None:
            v_weak = form.velocity(made.weak, noisy, jnp.full(len(noisy), t))
            velocity = v_weak + task.guidance_scale * (velocity - v_weak)
        total = parts.add(walk.total, velocity, part)
        moved = walk.z - (t - t_next) * parts.mean(total)
        complete = part == parts.count - 1
        return Walk(
            jnp.where(complete, moved, walk.z),
            jnp.where(complete, 0, total),
            walk.repeated + parts.counted(made.repeated, part).astype(jnp.int32),
        )

    return jax.lax.fori_loop(first, last, ask, walk)
