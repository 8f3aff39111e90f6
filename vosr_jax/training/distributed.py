"""Join several processes into one job, and name those that are missing.

If a process is missing, JAX ends the others with a C++ stack trace. Here process 0 first listens
on the port that JAX's coordinator will use, and every other process sends its number and host.
"""

import contextlib
import os
import socket
import time
from typing import Any

import jax

from vosr_jax.errors import UserError

# If a killed or stopped process sends no heartbeat for this long, the job ends: every other process
# exits non-zero, and the message names it. Restarting the same command resumes.
HEARTBEAT_SECONDS = 30
# How long a process waits at start-up for missing ones, which it then names.
START_SECONDS = 300
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_GO = "go"
_RETRY_SECONDS = 0.2
# Limit of a line, since an unrelated program may connect to the port.
_LONGEST = 4096


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
        # Not public: a JAX without it must not end the start.
        from jax._src.clusters import ClusterEnv

        address, count, number, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, wait
        )
    # If the interface has changed, the processes meet only in JAX.
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


def address_of(text: str) -> tuple[str, int]:
    """(host, port) of "host:port"; an IPv6 address stands in brackets.

    Raises:
      UserError: the port is missing or invalid.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={text} must be host:port of process 0, as in 10.0.0.1:1234"
        )
    return host.strip("[]"), int(port)


def meet(address: tuple[str, int], number: int, count: int, seconds: float) -> None:
    """Wait until all processes of a job have arrived.

    Args:
      address: host and port of process 0.
      number: of this process.
      count: of all processes.
      seconds: how long to wait.

    Raises:
      UserError: some did not arrive, and every process names the same ones; or two have the same
        number.
    """
    if count == 1:
        return
    deadline = time.monotonic() + seconds
    if number == 0:
        _receive(address[1], count, deadline, seconds)
    else:
        _report(address, number, count, deadline, seconds)


def _receive(port: int, count: int, deadline: float, seconds: float) -> None:
    came = {0: socket.gethostname()}
    waiting: dict[int, socket.socket] = {}
    answered: list[socket.socket] = []
    problem = ""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(_listener(port, count))
        while len(came) < count and not problem:
            left = deadline - time.monotonic()
            if left <= 0:
                problem = _who_came(came, count, seconds)
                break
            listener.settimeout(left)
            # A timeout, or an unrelated program has connected.
            with contextlib.suppress(OSError, ValueError):
                connection, _ = listener.accept()
                opened.enter_context(connection)
                connection.settimeout(max(min(left, 5.0), 0.1))
                number, of, host = _introduced(_line(connection))
                if number in waiting and _is_closed(waiting[number]):
                    # It was killed, and its scheduler has restarted it.
                    del came[number]
                problem = _judged(number, of, host, came, count)
                answered.append(connection)
                waiting[number] = connection
        for connection in answered:
            with contextlib.suppress(OSError):
                connection.sendall(f"{problem or _GO}\n".encode())
    if problem:
        raise UserError(problem)


def _introduced(line: str) -> tuple[int, int, str]:
    """(number, count, host) from the line that a process sends."""
    number, of, host = line.split(" ", 2)
    return int(number), int(of), host


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side is gone; a waiting process sends nothing."""
    waits = connection.gettimeout()
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(waits)


def _judged(number: int, of: int, host: str, came: dict[int, str], count: int) -> str:
    """Add a process to `came`; return what is wrong with it, or ""."""
    if of != count:
        return (
            f"process {number} ({host}) says JAX_NUM_PROCESSES={of}, process 0 ({came[0]}) says "
            f"{count}; give all the same"
        )
    if number in came:
        return f"two processes say JAX_PROCESS_ID={number}, on {came[number]} and {host}"
    came[number] = host
    return ""


def _who_came(came: dict[int, str], count: int, seconds: float) -> str:
    missing = [number for number in range(count) if number not in came]
    some = ", ".join(map(str, missing[:20])) + (", …" if len(missing) > 20 else "")
    here = ", ".join(f"{number} ({came[number]})" for number in sorted(came)[:20])
    return (
        f"{len(came)} of {count} processes came within {seconds:.0f} s (VOSR_START_SECONDS): "
        f"{here}{', …' if len(came) > 20 else ''}; missing: {some}. Start them, or correct "
        "JAX_NUM_PROCESSES"
    )


def _listener(port: int, count: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            backlog=count,
            dualstack_ipv6=both,
        )
    except OSError as error:
        raise UserError(
            f"process 0 cannot open port {port} of JAX_COORDINATOR_ADDRESS ({error.strerror}); "
            "choose a free one"
        ) from error


def _report(
    address: tuple[str, int], number: int, count: int, deadline: float, seconds: float
) -> None:
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=min(left, 10.0)) as connection:
                connection.sendall(f"{number} {count} {socket.gethostname()}\n".encode())
                # Process 0 may have started later than this process, and waits as long.
                connection.settimeout(seconds + 10)
                answer = _line(connection)
                if answer == _GO:
                    return
                raise UserError(answer)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            time.sleep(_RETRY_SECONDS)
    raise UserError(
        f"process {number} ({socket.gethostname()}) did not reach process 0 at "
        f"{address[0]}:{address[1]} within {seconds:.0f} s ({reason}; VOSR_START_SECONDS); start "
        "it, or correct JAX_COORDINATOR_ADDRESS"
    )


def _line(connection: socket.socket) -> str:
    """Read one line from the other side.

    Raises:
      ValueError: it sends no complete line.
    """
    text = b""
    while not text.endswith(b"\n"):
        more = connection.recv(_LONGEST)
        if not more or len(text) > _LONGEST:
            raise ValueError("the connection was closed")
        text += more
    return text.decode(errors="replace").strip()
