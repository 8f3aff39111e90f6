"""One update: frozen nets, objective, gradient, optimizer and EMA in a single jitted program."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vosr_jax.config import Config
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.noise import index_columns
from vosr_jax.diffusion.objectives import Settings, loss_of
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.models.lora import trained_of, with_base
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.accumulation import Replicas, accumulate
from vosr_jax.training.adversary import Adversary, make_adversary
from vosr_jax.training.data_failures import FAILED
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.optimizer import make_optimizer, schedule_of
from vosr_jax.training.pixel_losses import PerceptualTerm, perceptual_term
from vosr_jax.training.sharding import Gather
from vosr_jax.training.state import TrainState, new_state

Metrics = dict[str, Any]
# Metrics key of the discriminator's gradient, which the network's pass computes beside its own.
_RIVAL = "discriminator_gradient"
# Parts of [0, 1] over which the loss is logged by t.
TIME_BINS = 10


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """What is trained and how: everything that the step's program depends on except the mesh.

    Attributes:
      network: blueprint of the denoiser; if it has adapters, only they are trained.
      frozen: the frozen nets.
      objective: settings of the loss.
      optimizer: optax transformation.
      schedule: learning rate by step, for the log.
      ema_decay: of the moving average.
      ema_ramp: start the average faster: decay = min(decay, (1 + k) / (10 + k)).
      microbatches: number of parts over which a batch's gradient is accumulated.
      seed: of all random draws.
      perceptual: the perceptual distance of the predicted endpoint, or None.
      teacher: blueprint of the multi-step network that a student learns from, or None; its
        weights are passed with the frozen nets'.
      teacher_parameterization: the meaning of the teacher's output.
      gather: gathers the sharded parameters outside the blocks; None if none is sharded.
      deterministic: give the same bits in every run, on GPU too.
      adversary: the adversarial term, or None.
      replicas: adds up each replica's gradients apart over the microbatches; None: every
        microbatch's gradient is summed over all devices.
    """

    network: Blueprint
    frozen: FrozenNets
    objective: Settings
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    ema_decay: float
    ema_ramp: bool
    microbatches: int
    seed: int
    perceptual: PerceptualTerm | None = None
    teacher: Blueprint | None = None
    teacher_parameterization: Parameterization = Parameterization()
    gather: Gather | None = None
    deterministic: bool = False
    adversary: Adversary | None = None
    replicas: Replicas | None = None

    @classmethod
    def from_config(
        cls, config: Config, network: Blueprint, frozen: FrozenNets, **others
    ) -> "TrainStep":
        """Build the train step of a config; `others` are fields that the config does not set."""
        o = config.optimizer
        total = config.train.total_steps
        perceptual = perceptual_term(config, frozen)
        return cls(
            network=network,
            frozen=frozen,
            objective=config.objective_settings(),
            optimizer=make_optimizer(o, total),
            schedule=schedule_of(o, o.learning_rate, total),
            ema_decay=config.ema.decay,
            ema_ramp=config.ema.ramp,
            microbatches=config.train.microbatches,
            seed=config.seed,
            perceptual=perceptual,
            deterministic=config.train.deterministic,
            adversary=make_adversary(config, frozen, perceptual),
            **others,
        )

    def new_state(self, parameters: dict | None = None) -> TrainState:
        """The state before the first step, from given or newly initialized parameters."""
        rival = None if self.adversary is None else self.adversary.new_state()
        if parameters is None:
            parameters = trained_of(self.network.initialize())
        return new_state(parameters, self.optimizer, rival)

    def loss(
        self,
        parameters: dict,
        weights: dict,
        batch: dict[str, Array],
        step: Array,
        rival: dict | None = None,
    ) -> tuple[Array, Metrics]:
        """The loss of a whole batch of uint8 pairs; `rival` holds a discriminator's parameters."""
        return self._loss(parameters, weights, self._whole(batch), step, rival)

    def _whole(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Add to a batch what depends on several rows, so that it can be divided; drop notes."""
        batch = {name: value for name, value in batch.items() if name != "notes"}
        batch = self.frozen.paired(batch)
        if self.perceptual is None:
            return batch
        key = jax.random.key(self.seed)
        return batch | {"perceptual_share": self.perceptual.shares(key, batch["index"])}

    def _loss(
        self,
        parameters: dict,
        weights: dict,
        batch: dict[str, Array],
        step: Array,
        rival: dict | None,
    ) -> tuple[Array, Metrics]:
        """The loss of one part of a batch from `_whole`."""
        key = jax.random.key(self.seed)
        inputs = self.frozen.inputs(weights, batch, key) | {"step": step}
        parameterization, own = self.objective.parameterization, with_base(parameters, weights)
        velocity_fn = CachedDenoiser(self.network.merge(self._gathered(own)), parameterization)
        teacher_fn = None
        if self.teacher is not None:
            teacher = self.teacher.merge(self._gathered(weights["teacher"]))
            teacher_fn = CachedDenoiser(teacher, self.teacher_parameterization, keep_kv=False)
        distance = None
        if self.perceptual is not None:
            inputs["perceptual_share"] = batch["perceptual_share"]
            distance = partial(self.perceptual, weights)
        total, metrics = loss_of(self.objective)(
            velocity_fn,
            inputs,
            key,
            self.objective,
            teacher_fn=teacher_fn,
            endpoint_distance=distance,
        )
        latent = metrics.pop("endpoint_latent", None)
        if self.adversary is None or rival is None:
            return total, metrics
        added, rows, gradient = self.adversary.term(rival, weights, latent, inputs)
        return total + added, metrics | rows | {_RIVAL: gradient}

    def _gathered(self, parameters: dict) -> dict:
        return parameters if self.gather is None else self.gather.others(parameters)

    def gradient(
        self, parameters, weights, batch, step, rival: dict | None = None
    ) -> tuple[dict, Array, Metrics]:
        """(gradient, loss, metrics) of the whole batch, accumulated over the microbatches.

        With a discriminator, the metrics hold its gradient, which `update` takes.
        """
        value_and_grad = jax.value_and_grad(self._loss, has_aux=True)

        def part(rows: dict, others: tuple) -> tuple[tuple, Metrics]:
            parameters, weights, step, rival = others
            (loss, metrics), gradients = value_and_grad(parameters, weights, rows, step, rival)
            return (gradients, loss, metrics.pop(_RIVAL, None)), metrics

        batch, others = self._whole(batch), (parameters, weights, step, rival)
        if self.microbatches == 1:
            total, metrics = part(batch, others)
        else:
            like = (parameters, jnp.zeros(()), rival)
            total, metrics = accumulate(part, batch, others, like, self.microbatches, self.replicas)
        gradients, loss, rivals = total
        return gradients, loss, metrics if rivals is None else metrics | {_RIVAL: rivals}

    def update(
        self, state: TrainState, gradients: dict, rival_gradients: dict | None = None
    ) -> TrainState:
        """Apply the optimizer's step, then the EMA's and the discriminator's."""
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        # 1 - decay in double precision, as in the official code: float32 is off by 1 in 10^6.
        decay, rate = jnp.float32(self.ema_decay), jnp.float32(1 - self.ema_decay)
        if self.ema_ramp:
            decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
            rate = jnp.maximum(rate, 9.0 / (10.0 + state.step))
        ema = jax.tree.map(lambda e, p: decay * e + rate * p, state.ema, parameters)
        rival = state.discriminator
        if self.adversary is not None and rival is not None and rival_gradients is not None:
            rival = self.adversary.update(rival, rival_gradients)
        return TrainState(state.step + 1, parameters, ema, optimizer, rival)

    def step(
        self, state: TrainState, weights: dict, batch: dict[str, Array]
    ) -> tuple[TrainState, Metrics]:
        """Run one update; return the new state and the metrics.

        If the loss or the gradient is not finite, only the counts change. If a process reports in
        its notes that it has no data, nothing changes.

        Args:
          state: before this step.
          weights: of the frozen nets.
          batch: "hr", "lq" uint8 [B, H, W, 3], "index" uint32 [B, 2]; optionally "notes" int32
            [devices, K] (training/data_failures.py).

        Returns:
          (state, metrics): scalars; "loss_rows" [B] and, in two columns, the indices of their
          samples (`noise.columns_index`); "loss_by_t" [2, 10]; "notes" [K], summed.
        """
        rival = None if state.discriminator is None else state.discriminator["parameters"]
        gradients, loss, metrics = self.gradient(
            state.parameters, weights, batch, state.step, rival
        )
        rivals = metrics.pop(_RIVAL, None)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        failed: Array | bool = False
        notes = None
        if "notes" in batch:
            # Floats, exact up to 2^24 rows, share one collective with the other metrics' sums.
            notes = jnp.sum(batch["notes"].astype(jnp.float32), axis=0).astype(jnp.int32)
            failed = notes[FAILED] > 0
        new = _chosen(finite, failed, self.update(state, gradients, rivals), state)
        # From the parameters: the optimizer's update tree would have to stay in memory for this.
        change = jax.tree.map(jnp.subtract, new.parameters, state.parameters)
        logged = {
            "loss": loss,
            "grad_norm": norm,
            "param_norm": optax.global_norm(new.parameters),
            "update_norm": optax.global_norm(change),
            "skipped": 1.0 - finite,
            "learning_rate": jnp.asarray(self.schedule(state.step), jnp.float32),
            "loss_rows": metrics["loss_rows"],
            "loss_by_t": loss_by_time(metrics["loss_rows"], metrics["t"]),
        } | index_columns(batch["index"])
        for name in ("perceptual", "adversarial", "discriminator"):
            if f"{name}_rows" in metrics:
                logged[name] = jnp.mean(metrics[f"{name}_rows"])
        if notes is not None:
            logged["notes"] = notes
        return new, logged


def _chosen(
    finite: Array, failed: Array | bool, updated: TrainState, state: TrainState
) -> TrainState:
    """The updated state; if not finite, the old one with new counts; if failed, the old one.

    Schedules follow the step, so a skipped update counts as a step. A step without data does not.
    """

    def chosen(new: Array, old: Array) -> Array:
        kept = failed if jnp.issubdtype(new.dtype, jnp.integer) else failed | ~finite
        return jnp.where(kept, old, new)

    return jax.tree.map(chosen, updated, state)


def loss_by_time(losses: Array, t: Array) -> Array:
    """Sums and counts of the rows' losses by tenth of t; rows that are not finite are left out.

    Args:
      losses: [B].
      t: [B] in [0, 1].

    Returns:
      [2, 10] float32: sums, counts.
    """
    tenth = jnp.clip(jnp.floor(t * TIME_BINS).astype(jnp.int32), 0, TIME_BINS - 1)
    finite = jnp.isfinite(losses)
    inside = (tenth == jnp.arange(TIME_BINS)[:, None]) & finite
    sums = jnp.sum(jnp.where(inside, losses, 0.0), axis=1)
    return jnp.stack([sums, jnp.sum(inside, axis=1)]).astype(jnp.float32)
