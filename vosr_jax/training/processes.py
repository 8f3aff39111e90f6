"""Several processes as one job: who they are, and what happens when one of them falls silent."""

import os

import jax

from vosr_jax.errors import UserError

# A process that sends no sign of life for so long, killed or stopped, ends the job: every other one
# exits non-zero, and the message names it. Restarting the same command resumes.
HEARTBEAT_SECONDS = 30
# So long a process waits at start-up for those that are missing, which it then names.
START_SECONDS = 300

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join(detect: bool = False) -> None:
    """Join the job that the environment describes; nothing happens where it describes none.

    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID
    describe it. Must run before anything touches a device.

    Args:
      detect: let JAX find the job itself, as it can on TPU pods, under Slurm and in GKE.

    Raises:
      UserError: the variables contradict each other, or processes are missing.
    """
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if not given and not detect:
        return
    options: dict = {}
    if given:
        missing = [name for name in _VARIABLES if name not in given]
        if missing:
            raise UserError(f"set {', '.join(missing)} too: {', '.join(given)} alone say no job")
        try:
            number, count = int(given[_VARIABLES[2]]), int(given[_VARIABLES[1]])
        except ValueError as error:
            raise UserError(
                f"JAX_NUM_PROCESSES and JAX_PROCESS_ID are numbers ({error})"
            ) from error
        if not 0 <= number < count:
            raise UserError(f"JAX_PROCESS_ID={number} is none of JAX_NUM_PROCESSES={count}")
        options = dict(
            coordinator_address=given[_VARIABLES[0]], num_processes=count, process_id=number
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **options,
            initialization_timeout=int(os.environ.get("VOSR_START_SECONDS", START_SECONDS)),
            heartbeat_timeout_seconds=int(
                os.environ.get("VOSR_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
            ),
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the job's processes did not come together: {reason}") from error
