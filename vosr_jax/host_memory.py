"""What this machine's memory has room for."""

import re
from pathlib import Path

_UNKNOWN_FREE = 4 << 30


def free_host_memory() -> int:
    """Bytes free on this machine; 4 GiB where it does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else _UNKNOWN_FREE
