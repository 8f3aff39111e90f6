"""Join several processes into one job, and end the job if one of them falls silent."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import jax

from vosr_jax.errors import UserError
from vosr_jax.files.mirror import upload_before_leaving
from vosr_jax.training.meeting import address_of, meet

# If a killed or stopped process sends no heartbeat for this long, the job ends: every other process
# exits non-zero, and the message names it. Restarting the same command resumes.
HEARTBEAT_SECONDS = 30
# How long a process waits at start-up for missing ones, which it then names.
START_SECONDS = 300
# How long it waits for the others to compile the step; a dead process ends the wait sooner.
COMPILE_SECONDS = 4 * 3600

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join(detect: bool = False) -> None:
    """Join the job that the environment describes; do nothing if it describes none.

    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID
    describe it. Must run before anything touches a device.

    Args:
      detect: let JAX find the job itself, as it can on TPU pods, under Slurm and in GKE.

    Raises:
      UserError: the variables contradict each other, or processes are missing; the message names
        those that arrived.
    """
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if not given and not detect:
        return
    wait = _seconds("VOSR_START_SECONDS", START_SECONDS)
    heartbeat = _seconds("VOSR_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    options = _described(given) if given else _detected(wait)
    if options:
        meet(
            address_of(options["coordinator_address"]),
            options["process_id"],
            options["num_processes"],
            wait,
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **options, initialization_timeout=wait, heartbeat_timeout_seconds=heartbeat
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the job's processes did not come together: {reason}") from error


def _described(given: dict[str, str]) -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize` from the environment variables."""
    missing = [name for name in _VARIABLES if name not in given]
    if missing:
        raise UserError(f"set {', '.join(missing)} too: {', '.join(given)} alone say no job")
    address_of(given[_VARIABLES[0]])
    try:
        number, count = int(given[_VARIABLES[2]]), int(given[_VARIABLES[1]])
    except ValueError as error:
        raise UserError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID are numbers ({error})") from error
    if not 0 <= number < count:
        raise UserError(f"JAX_PROCESS_ID={number} is none of JAX_NUM_PROCESSES={count}")
    return dict(coordinator_address=given[_VARIABLES[0]], num_processes=count, process_id=number)


def _detected(wait: int) -> dict[str, Any]:
    """Arguments of the job that JAX detects; {} if they cannot be read."""
    try:
        from jax._src.clusters import ClusterEnv

        address, count, number, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, wait
        )
    # The interface is not public. If it has changed, the processes meet only in JAX.
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError):
        return {}
    if None in (address, count, number):
        return {}
    return dict(coordinator_address=address, num_processes=count, process_id=number)


def _seconds(name: str, usual: int) -> int:
    text = os.environ.get(name, str(usual))
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"{name}={text} must be a whole number of seconds, at least 1")
    return int(text)


def compiled_together(program: Any, *arguments: Any) -> Any:
    """Compile a jitted program for these arguments on every process before any process runs it.

    A running collective waits only seconds for the other processes. A slower host, or one without
    a cached program on its disk, may compile for minutes longer. In a job of one process the
    program stays as it is.
    """
    if jax.process_count() == 1:
        return program
    compiled = program.lower(*arguments).compile()
    store().wait_at_barrier("vosr/compiled", COMPILE_SECONDS * 1000)
    return compiled


class SharedError(UserError):
    """An error that all processes raise at the same step, so that they may save together."""


@contextlib.contextmanager
def errors_of_one() -> Iterator[None]:
    """In a job, end this process at once on an error that is not shared; see `leave_alone`."""
    try:
        yield
    except SharedError:
        raise
    except Exception as error:
        if jax.process_count() > 1:
            leave_alone(error)
        raise


def leave_alone(error: Exception) -> NoReturn:
    """End this process of a job at once, for an error that the others do not have.

    A normal exit would wait for the others, which wait for this process inside a step. After this
    exit they notice the missing heartbeat within HEARTBEAT_SECONDS.
    """
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    upload_before_leaving()
    os._exit(1)


def store():
    """The job's key-value store, None in a job of one process; JAX gives it no public name."""
    from jax._src import distributed

    return distributed.global_state.client
