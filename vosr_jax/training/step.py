"""One update: frozen nets, objective, gradient, optimizer and EMA in a single jitted program."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.diffusion.objectives import Settings, loss_of
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.velocity_field import NetworkField
from vosr_jax.models.parameters import Blueprint
from vosr_jax.training.compiler_options import compiler_options
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.gathering import Gather
from vosr_jax.training.sharding import batch_sharding, state_shardings
from vosr_jax.training.state import TrainState

if TYPE_CHECKING:
    from vosr_jax.config import Config

Metrics = dict[str, Array]
StepFn = Callable[[TrainState, dict, dict[str, Array]], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Method:
    """What is trained and how; all that the step's program depends on, but for the mesh.

    Attributes:
      network: blueprint of the denoiser.
      frozen: the frozen nets.
      objective: settings of what is minimized.
      optimizer: optax transformation.
      schedule: learning rate by step, for the log.
      ema_decay: of the moving average.
      ema_ramp: start the average faster: decay = min(decay, (1 + k) / (10 + k)).
      microbatches: the batch's gradient is summed over so many parts.
      seed: of all draws.
      endpoint_distance: (weights, latent, inputs, wanted) -> [B], or None.
      teacher: blueprint of the multi-step network that a student learns from, or None; its
        weights travel with the frozen nets'.
      teacher_form: what the teacher's output stands for.
      gather: brings the parameters that lie outside the blocks; None where none is sharded.
      deterministic: the same bits in every run on GPU too.
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
    endpoint_distance: Callable[[dict, Array, dict, Array | None], Array] | None = None
    teacher: Blueprint | None = None
    teacher_form: Parameterization = Parameterization()
    gather: Gather | None = None
    deterministic: bool = False

    @classmethod
    def from_config(
        cls, config: "Config", network: Blueprint, frozen: FrozenNets, **others
    ) -> "Method":
        """The method that a config describes, with the fields that it does not name."""
        from vosr_jax.training.optimizer import learning_rate_schedule, make_optimizer
        from vosr_jax.training.perceptual import make_endpoint_distance

        o = config.optimizer
        total = config.train.total_steps
        return cls(
            network=network,
            frozen=frozen,
            objective=config.objective_settings(),
            optimizer=make_optimizer(o, total),
            schedule=learning_rate_schedule(o.schedule, o.learning_rate, o.warmup_steps, total),
            ema_decay=config.ema.decay,
            ema_ramp=config.ema.ramp,
            microbatches=config.train.microbatches,
            seed=config.seed,
            endpoint_distance=make_endpoint_distance(config, frozen),
            deterministic=config.train.deterministic,
            **others,
        )

    def loss(
        self, parameters: dict, weights: dict, batch: dict[str, Array], step: Array
    ) -> tuple[Array, Metrics]:
        """The objective of uint8 pairs."""
        key = jax.random.key(self.seed)
        inputs = self.frozen.inputs(weights, batch, key) | {"step": step}
        form = self.objective.parameterization
        velocity_fn = NetworkField(self.network.merge(self._gathered(parameters)), form)
        teacher_fn = None
        if self.teacher is not None:
            teacher = self.teacher.merge(self._gathered(weights["teacher"]))
            teacher_fn = NetworkField(teacher, self.teacher_form)
        distance = None
        if self.endpoint_distance is not None:
            distance = partial(self.endpoint_distance, weights)
        return loss_of(self.objective)(
            velocity_fn,
            inputs,
            key,
            self.objective,
            teacher_fn=teacher_fn,
            endpoint_distance=distance,
        )

    def _gathered(self, parameters: dict) -> dict:
        return parameters if self.gather is None else self.gather.others(parameters)

    def gradient(self, parameters, weights, batch, step) -> tuple[dict, Array, Metrics]:
        """(gradient, loss, metrics), accumulated over the microbatches."""
        value_and_grad = jax.value_and_grad(self.loss, has_aux=True)
        if self.microbatches == 1:
            (loss, metrics), gradients = value_and_grad(parameters, weights, batch, step)
            return gradients, loss, metrics

        def part(total, rows):
            (loss, metrics), gradients = value_and_grad(parameters, weights, rows, step)
            return jax.tree.map(jnp.add, total, (gradients, loss)), metrics

        # Row i goes to part i % microbatches, so that every part lies over all devices.
        n = self.microbatches
        parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), batch)
        zeros = (jax.tree.map(jnp.zeros_like, parameters), jnp.zeros(()))
        (gradients, loss), metrics = jax.lax.scan(part, zeros, parts)
        metrics = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1), metrics)
        return jax.tree.map(lambda x: x / n, gradients), loss / n, metrics

    def update(self, state: TrainState, gradients: dict) -> TrainState:
        """The optimizer's step, then the EMA's."""
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        # 1 - decay in double precision, as officially: in float32 it is off by a part in 10^6.
        decay, rate = jnp.float32(self.ema_decay), jnp.float32(1 - self.ema_decay)
        if self.ema_ramp:
            decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
            rate = jnp.maximum(rate, 9.0 / (10.0 + state.step))
        ema = jax.tree.map(lambda e, p: decay * e + rate * p, state.ema, parameters)
        return TrainState(state.step + 1, parameters, ema, optimizer)

    def step(
        self, state: TrainState, weights: dict, batch: dict[str, Array]
    ) -> tuple[TrainState, Metrics]:
        """One finished update and its metrics (scalars, and "loss_rows" [B]).

        Where loss or gradient are not finite, all but the counts stays as it was.
        """
        gradients, loss, metrics = self.gradient(state.parameters, weights, batch, state.step)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        logged = {
            "loss": loss,
            "grad_norm": norm,
            "skipped": 1.0 - finite,
            "learning_rate": jnp.asarray(self.schedule(state.step), jnp.float32),
            "loss_rows": metrics["loss_rows"],
        }
        if "perceptual_rows" in metrics:
            logged["perceptual"] = jnp.mean(metrics["perceptual_rows"])
        return _if_finite(finite, self.update(state, gradients), state), logged


def _if_finite(finite: Array, updated: TrainState, state: TrainState) -> TrainState:
    """The update, or the state before with the update's counts: schedules follow the step."""

    def chosen(new: Array, old: Array) -> Array:
        return new if jnp.issubdtype(new.dtype, jnp.integer) else jnp.where(finite, new, old)

    return jax.tree.map(chosen, updated, state)


def compile_step(method: Method, abstract_state: TrainState, mesh: Mesh) -> StepFn:
    """The jitted step: state donated and sharded, the teacher too, rows over the batch axes.

    Args:
      method: what to run.
      abstract_state: shapes of the state.
      mesh: from `make_mesh`.

    Returns:
      (state, frozen weights, batch) -> (state, metrics), metrics replicated.
    """
    platform = mesh.devices.flat[0].platform
    states, everywhere = state_shardings(abstract_state, mesh), NamedSharding(mesh, P())
    # Weights lie where `weight_shardings` put them; their tree is not known here.
    return jax.jit(
        method.step,
        in_shardings=(states, None, batch_sharding(mesh)),
        out_shardings=(states, everywhere),
        donate_argnums=0,
        compiler_options=compiler_options(platform, deterministic=method.deterministic) or None,
    )
