"""Programs in a process with simulated devices; a process has one number of devices for good."""

import json
import os
import subprocess
import sys
from pathlib import Path


def on_devices(count: int, module: str, *arguments: str) -> dict:
    """The JSON that a module of the tests prints where JAX has this many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
