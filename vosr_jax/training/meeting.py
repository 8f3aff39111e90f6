"""Wait for all processes of a job before JAX connects them, and name those that are missing.

If a process is missing, JAX ends the others with a C++ stack trace. Here process 0 first listens
on the port that JAX's coordinator will use, and every other process sends its number and host.
"""

import contextlib
import socket
import time

from vosr_jax.errors import UserError

_GO = "go"
_RETRY_SECONDS = 0.2
# Limit of a line, since an unrelated program may connect to the port.
_LONGEST = 4096


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
