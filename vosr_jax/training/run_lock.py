"""A lock that admits one run to a workdir and expires after a crash.

`run.lock` names the workdir's holder: host, process and start. On the same machine a holder is
alive while its process is. Another machine relies on the heartbeat: the holder renews its lock
every few seconds, and a holder that is silent for a minute counts as gone.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from etils import epath

from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files.atomic import create, write_bytes
from vosr_jax.files.paths import is_remote, reading

NAME = "run.lock"
BEAT_SECONDS, SILENT_SECONDS = 10.0, 60.0


def _started(pid: int) -> str | None:
    """Start of a process on this machine, in kernel ticks; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _machine() -> str:
    """Host, boot and namespace; equal ones mean that process ids are comparable."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(os.stat("/proc/self/ns/pid").st_ino),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return "/".join(parts)


class RunLock:
    """Hold a workdir until it is released; wait a minute for the heartbeat of a holder elsewhere.

    Args:
      folder: the workdir, which exists already.
      beat_seconds: between two heartbeats.
      silent_seconds: silence after which a holder on another machine counts as gone.

    Raises:
      UserError: another run is alive in the folder; the message names it.
    """

    def __init__(
        self,
        folder: epath.Path,
        *,
        beat_seconds: float = BEAT_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
    ):
        self._folder, self._path = folder, folder / NAME
        self._beat_seconds, self._silent_seconds = beat_seconds, silent_seconds
        self._own = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "machine": _machine(),
            "started": _started(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._released = threading.Event()
        self._acquire()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._thread.start()

    def _content(self) -> bytes:
        return (json.dumps(self._own | {"beat": time.time()}) + "\n").encode()

    def _read(self) -> dict[str, Any] | None:
        """The workdir's holder; None if there is none; empty if the lock is unreadable."""
        with reading(self._path):
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            holder = json.loads(data)
            return holder if isinstance(holder, dict) else {}
        except ValueError:
            return {}

    def _sign(self) -> tuple:
        """A value that changes with every heartbeat."""
        if is_remote(self._path):
            return tuple((self._read() or {}).items())
        with contextlib.suppress(FileNotFoundError):
            return (os.stat(self._path).st_mtime_ns,)
        return ()

    def _acquire(self) -> None:
        # Try several times: the lock may vanish or change while it is examined.
        for _ in range(5):
            if create(self._path, self._content()):
                return
            holder = self._read()
            if holder is None:
                continue
            if self._is_alive(holder):
                break
            if holder.get("process") != os.getpid():
                say(f"{self._path} of {_named(holder)} is left over; it is replaced")
            self._take_away(holder)
        raise UserError(
            f"workdir {self._folder} is in use by {_named(self._read() or {})}; wait for it, stop "
            "it, or choose another workdir"
        )

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if holder.get("machine") == self._own["machine"]:
            own = holder.get("process") == os.getpid()
            alive = _started(int(holder.get("process", -1))) == holder.get("started") is not None
            return alive and not own
        first, until = self._sign(), time.monotonic() + self._silent_seconds
        if time.time() - float(holder.get("beat", 0)) > 10 * self._silent_seconds and is_remote(
            self._path
        ):
            return False
        say(
            f"{self._path} names {_named(holder)}; if it shows no sign of life for "
            f"{self._silent_seconds:.0f} s, this run begins"
        )
        while time.monotonic() < until:
            time.sleep(min(1.0, self._silent_seconds / 20))
            if self._sign() != first:
                return True
        return False

    def _take_away(self, holder: dict[str, Any]) -> None:
        """Remove a dead holder's lock, but not a lock that has replaced it meanwhile."""
        if is_remote(self._path):
            if (self._read() or {}).get("token") == holder.get("token"):
                self._path.unlink(missing_ok=True)
            return
        aside = Path(f"{self._path}.{self._own['token']}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        try:
            taken = json.loads(aside.read_bytes())
        except ValueError:
            taken = {}
        if taken.get("token") != holder.get("token"):
            with contextlib.suppress(OSError):
                os.link(aside, self._path)
        aside.unlink()

    def _beat(self) -> None:
        while not self._released.wait(self._beat_seconds):
            # The disk may be full or the network down; the next heartbeat may succeed.
            with contextlib.suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        holder = self._read()
        if holder is None:
            create(self._path, self._content())
        elif holder.get("token") == self._own["token"]:
            if is_remote(self._path):
                write_bytes(self._path, self._content())
            else:
                # This writes no byte, so a full disk cannot stop the heartbeat.
                os.utime(self._path)
        elif holder.get("process") == os.getpid() and holder.get("host") == self._own["host"]:
            self._released.set()
        elif holder:
            say(
                f"workdir {self._folder} was taken by {_named(holder)}; this run ends without "
                "saving, so that it wrecks nothing"
            )
            os._exit(1)

    def release(self) -> None:
        """Release the workdir; a second call does nothing."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            if (self._read() or {}).get("token") == self._own["token"]:
                self._path.unlink(missing_ok=True)


def _named(holder: dict[str, Any]) -> str:
    if not holder:
        return "an unknown process"
    who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
    return f"{who} since {holder.get('since', '?')}"
