"""Our training step beside the official one, part by part; called by train_step.py --official."""

import dataclasses
import datetime
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from official_process import Official, timed
from process_memory import peak_memory

from vosr_jax.config import Config
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.objectives import loss_of
from vosr_jax.host_memory import return_compiler_memory
from vosr_jax.training.abstract import abstract_run, product_flops
from vosr_jax.training.build import jit_train_step
from vosr_jax.training.sharding import make_mesh
from vosr_jax.training.state import new_state

_PARTS = {
    "encode": "SD encoder, both pictures",
    "tokens": "DINOv2",
    "denoise": "denoiser, forward and backward",
    "update": "clipping, AdamW, EMA",
    "step": "whole step",
}


class Ours:
    """The step that train.py compiles, and its parts, at random weights."""

    def __init__(self, config: Config):
        self._mesh = make_mesh(1, 1, 1, jax.devices()[:1])
        run = abstract_run(config, self._mesh)
        self.train_step, self._abstract = run.train_step, run.state
        rng = np.random.default_rng(0)

        def drawn(leaf):
            if leaf.dtype == jnp.uint8:
                return jnp.asarray(rng.integers(0, 256, leaf.shape, np.uint8))
            if jnp.issubdtype(leaf.dtype, jnp.integer):
                return jnp.zeros(leaf.shape, leaf.dtype)
            values = rng.standard_normal(leaf.shape, np.float32)
            return jnp.asarray(values * np.float32(0.02)).astype(leaf.dtype)

        self.weights, self.batch = jax.tree.map(drawn, (run.weights, run.batch))
        self.key = jax.random.key(0)

        def initial():
            return new_state(self.train_step.network.initialize(), self.train_step.optimizer)

        self.state = jax.jit(initial)()

    def step_call(self) -> Callable:
        """One step after the other, the state donated."""
        step = jit_train_step(self.train_step, self._abstract, self._mesh)

        def call():
            self.state, metrics = step(self.state, self.weights, self.batch)
            return metrics

        return call

    def update_call(self) -> Callable:
        """Clipping, optimizer and EMA with gradients of ones, a state of its own donated."""
        update = jax.jit(self.train_step.update, donate_argnums=0)
        gradients = jax.tree.map(jnp.ones_like, self.state.parameters)
        kept = [jax.tree.map(jnp.copy, self.state)]

        def call():
            kept[0] = update(kept[0], gradients)
            return kept[0]

        return call

    def parts(self) -> dict[str, tuple[Callable, tuple]]:
        """(function, arguments) of each part."""
        frozen, train_step = self.train_step.frozen, self.train_step
        inputs = jax.jit(frozen.inputs)(self.weights, self.batch, self.key)
        alone = dataclasses.replace(frozen, encoder=None)

        def encode(weights, batch):
            return alone.inputs(weights, batch, self.key)["hr_latent"]

        def tokens(weights, batch):
            lq = batch["lq"].astype(jnp.float32) / 127.5 - 1
            return frozen.tokens(weights, lq, lq)

        def denoise(parameters, inputs):
            denoiser = CachedDenoiser(
                train_step.network.merge(parameters), train_step.objective.parameterization
            )
            loss = loss_of(train_step.objective)
            return loss(denoiser, inputs | {"step": 0}, self.key, train_step.objective)[0]

        gradients = jax.tree.map(jnp.ones_like, self.state.parameters)
        return {
            "encode": (encode, (self.weights, self.batch)),
            "tokens": (tokens, (self.weights, self.batch)),
            "denoise": (jax.grad(denoise), (self.state.parameters, inputs)),
            "update": (train_step.update, (self.state, gradients)),
        }


def compare(config: Config, folder: Path, python: str, rounds: int) -> None:
    """Print the table."""
    cores = len(os.sched_getaffinity(0))
    settings = config.model_settings()
    return_compiler_memory()  # as train.py does
    ours = Ours(config)
    # First and alone: what follows holds more than a step does.
    step = ours.step_call()
    for _ in range(2):
        jax.block_until_ready(step())
    peak = peak_memory()
    official = Official(
        "train_step_official.py",
        python,
        folder,
        crop_size=config.data.crop_size,
        rows=config.train.batch_size,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        threads=cores,
    )
    official.ask("step")
    official.ask("step")
    their_peak = official.ask("peak")["peak"]
    whole = timed(official, {"step": step}, rounds)
    parts = ours.parts()
    calls: dict[str, Callable] = {}
    for name, (function, arguments) in parts.items():
        compiled = jax.jit(function)
        calls[name] = lambda compiled=compiled, arguments=arguments: compiled(*arguments)
    counted = {name: product_flops(f, *arguments) for name, (f, arguments) in parts.items()}
    calls["update"] = ours.update_call()
    for call in calls.values():
        jax.block_until_ready(call())
    times = timed(official, calls, rounds) | whole
    theirs = {name: official.ask("flops", of=name)["flops"] for name in parts}
    official.close()
    for flops in (counted, theirs):
        flops["step"] = sum(flops.values())
    print(f"\n{datetime.date.today()}, {cores} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"jax {jax.__version__}, torch {official.facts['torch']}; float32, ", end="")
    print(f"{config.train.batch_size} pairs of {config.data.crop_size} px, ", end="")
    print(f"{settings.depth} blocks, median of {rounds}\n")
    print("| part | official, 10^12 operations | ours | official, s | ours, s | speed |")
    print("|---|---|---|---|---|---|")
    for name, label in _PARTS.items():
        a, b = times[f"official {name}"], times[f"ours {name}"]
        print(
            f"| {label} | {theirs[name] / 1e12:.3f} | {counted[name] / 1e12:.3f} "
            f"| {a:.3f} | {b:.3f} | {a / b:.2f} |"
        )
    print(f"\npeak memory: official {their_peak / 2**30:.2f} GiB, ours {peak / 2**30:.2f} GiB")
