"""A train step that was compiled before the job started: `vosr plan --save-executable`.

A file has one line of JSON that names the program, then the executable as JAX serializes it. A
start that finds its own program in the file loads it; any other start compiles.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any, cast

import jax
import jaxlib
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from jax.sharding import Mesh

from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files import reading, to_path, write_bytes
from vosr_jax.training.build import StepFn, compiler_options, platform_of
from vosr_jax.training.processes import refused_together, worst_of_all
from vosr_jax.training.setup import Run
from vosr_jax.training.step import TrainStep

_FORMAT = "vosr_jax train step"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What must be equal for an executable to be the one that a start would compile.

    Attributes:
      program: SHA-256 of the lowered step, with shapes, shardings and kernels.
      options: compiler options, the step's own and those of the environment.
      devices: their kind, and their numbers in the mesh's order.
      compiler: the platform's version, which names the compiler's build.
      jax: versions of jax and jaxlib.
    """

    program: str
    options: str
    devices: str
    compiler: str
    jax: str


def compiled_step(step_fn: StepFn, run: Run, batch: dict[str, jax.Array]) -> StepFn:
    """The step of a run from `train.executable`, or else from the compiler.

    All processes of a job load it, or all compile.

    Args:
      step_fn: the jitted step.
      run: whose state and weights it will get.
      batch: the first batch.

    Returns:
      The compiled step; in a job of one process without a file, `step_fn`, which compiles at its
      first call.

    Raises:
      UserError: on some process the file cannot be read, or is damaged.
    """
    path = run.config.train.executable
    if path is None and jax.process_count() == 1:
        return step_fn
    lowered = cast(Any, step_fn).lower(run.state, run.weights, batch)
    if path is not None:
        own = identity(run.train_step, lowered, run.mesh)
        loaded, why = refused_together(lambda: load_executable(path, lowered, own, run.mesh))
        worst, why = worst_of_all(int(loaded is None), why)
        if not worst:
            return cast(StepFn, loaded)
        say(f"{path} is not used, and the step is compiled now: {why}")
    return lowered.compile()


def identity(train_step: TrainStep, lowered: jax.stages.Lowered, mesh: Mesh) -> Identity:
    """The identity of a lowered step.

    Args:
      train_step: what it does.
      lowered: from `jit_train_step(...).lower(...)`.
      mesh: of the step; its devices need not exist.
    """
    first = mesh.devices.flat[0]
    options: dict = compiler_options(platform_of(mesh), deterministic=train_step.deterministic)
    flags = {
        name: sorted(os.environ.get(name, "").split()) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
    }
    order = ",".join(str(device.id) for device in mesh.devices.flat)
    shape = " x ".join(map(str, mesh.devices.shape))
    return Identity(
        program=hashlib.sha256(lowered.as_text().encode()).hexdigest(),
        options=json.dumps(options | flags, sort_keys=True),
        devices=f"{first.device_kind}, {shape}: {order}",
        compiler=first.client.platform_version,
        jax=f"{jax.__version__}, {jaxlib.__version__}",
    )


def save_executable(path: str | os.PathLike, compiled: Any, own: Identity) -> None:
    """Write a compiled step.

    Args:
      path: of the file, on a disk or in a bucket.
      compiled: from `lowered.compile()` under `no_compilation_cache`. What comes from the cache on
        disk may lack functions when it is saved again; XLA's CPU programs do.
      own: its identity.

    Raises:
      UserError: the file cannot be written, or this compiler's programs cannot be saved.
    """
    try:
        body, _, _ = serialize(compiled)
    except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise UserError(f"{path}: this step cannot be saved ({str(error)[:200]})") from error
    head = json.dumps({"format": _FORMAT, "body": _digest(body)} | dataclasses.asdict(own))
    write_bytes(to_path(path), head.encode() + b"\n" + body)


def load_executable(
    path: str | os.PathLike, lowered: jax.stages.Lowered, own: Identity, mesh: Mesh
) -> tuple[Any | None, str]:
    """Load the executable of a lowered step.

    Loading an executable runs code from the file: load only files of your own.

    Args:
      path: of a file from `save_executable`.
      lowered: the step as this start would compile it.
      own: its identity.
      mesh: of the step.

    Returns:
      (the compiled step, ""), or (None, why the file is of no use here).

    Raises:
      UserError: the file cannot be read, or is damaged.
    """
    head, body = _read(path)
    different = [
        f"{field.name} ({_short(head.get(field.name))} there, {_short(getattr(own, field.name))} "
        "here)"
        for field in dataclasses.fields(own)
        if head.get(field.name) != getattr(own, field.name)
    ]
    if different:
        return None, f"another {'; another '.join(different)}"
    devices = list(mesh.devices.flat)
    try:
        loaded = deserialize_and_load(
            body,
            jax.tree.structure(lowered.args_info),
            lowered.out_tree,
            backend=devices[0].client,
            execution_devices=devices,
        )
    # Unpickling and the backend's loader raise what they like; the compiler can always help.
    except Exception as error:
        return None, f"it cannot be loaded ({type(error).__name__}: {_short(error)})"
    return loaded, ""


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], bytes]:
    with reading(path):
        head, _, body = to_path(path).read_bytes().partition(b"\n")
    try:
        known = json.loads(head)
    except ValueError:
        known = None
    if not isinstance(known, dict) or known.get("format") != _FORMAT:
        raise UserError(f"{path} is no train step; write one with vosr plan --save-executable")
    if known.get("body") != _digest(body):
        raise UserError(f"{path} is damaged; write it anew with vosr plan --save-executable")
    return known, body


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:40]}...{text[-17:]}"
