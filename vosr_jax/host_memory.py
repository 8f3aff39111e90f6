"""Free memory of this machine."""

import re
from pathlib import Path

_UNKNOWN_FREE = 4 << 30


def free_host_memory() -> int:
    """Bytes free on this machine; 4 GiB if the system does not report it."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else _UNKNOWN_FREE
