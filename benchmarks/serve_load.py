"""`vosr serve` under load, against the same pictures through one Upscaler.

    python benchmarks/serve_load.py [--requests 200] [--clients 16] [--side 64] [--burst 2000]

Starts the service on loopback, sends the requests from as many threads as there are clients, each
of which comes back after Retry-After where it gets 503, and checks every answer against the
Upscaler's own picture. Then comes a burst whose clients do not come back, and a client in ten is
cut off in the middle. Last, a process of its own makes the same pictures one after another, from
file to file in memory.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import datetime
import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def main() -> None:
    """Print a table and its machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--side", type=int, default=64, help="of the pictures; the results are x4")
    parser.add_argument("--model", default="nano-onestep")
    parser.add_argument(
        "--queue", type=int, default=12, help="below the clients, so that 503 comes"
    )
    parser.add_argument("--burst", type=int, default=2000, help="requests that do not come back")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.alone:
        print(json.dumps(alone(Path(o.alone), o.model)))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        pictures = [_picture(seed, o.side) for seed in range(o.requests)]
        for number, picture in enumerate(pictures):
            (Path(folder) / f"{number:05}.png").write_bytes(picture)
        served = _serve(o, pictures)
        command = [sys.executable, __file__, "--alone", folder, "--model", o.model]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        single = json.loads(done.stdout.splitlines()[-1])
        for number, made in enumerate(served.results):
            path = Path(folder) / f"{number:05}-alone.png"
            before, after = (np.asarray(Image.open(f)) for f in (path, io.BytesIO(made)))
            if not np.array_equal(before, after):
                sys.exit(f"picture {number} differs from the Upscaler's own")
    cores = len(os.sched_getaffinity(0))
    print(f"{datetime.date.today()}, {cores} cores, load {load:.1f}; {o.model}, {o.side} px x4, ")
    print(f"{o.requests} requests from {o.clients} clients, a queue of {o.queue}\n")
    times = sorted(served.seconds)
    rows = [
        ("answered, lost", f"{len(served.results)}, {o.requests - len(served.results)}"),
        ("503 on the way", served.refused),
        (
            "p50, p95 of a request that was let in, s",
            f"{_at(times, 0.5):.2f}, {_at(times, 0.95):.2f}",
        ),
        ("pictures a second", f"{o.requests / served.wall:.2f}"),
        ("pictures a second through one Upscaler", f"{o.requests / single['wall']:.2f}"),
        ("share of that", f"{single['wall'] / served.wall:.2f}"),
        ("CPU seconds a picture", f"{served.cpu / o.requests:.2f}"),
        ("CPU seconds a picture through one Upscaler", f"{single['cpu'] / o.requests:.2f}"),
        ("burst: answers", ", ".join(f"{c}: {n}" for c, n in sorted(served.burst.items()))),
        ("resident MB: ready, first picture, load, burst", ", ".join(map(str, served.resident))),
    ]
    print("| | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


@dataclasses.dataclass
class Served:
    """What the clients saw.

    Attributes:
      results: pictures, in order.
      seconds: of every request that was let in.
      refused: answers 503.
      wall, cpu: seconds of all of them, by the clock and of the service's processors.
      burst: {status: answers}.
      resident: megabytes of the service.
    """

    results: list[bytes] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    refused: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    burst: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    resident: list[int] = dataclasses.field(default_factory=list)


def _serve(o: argparse.Namespace, pictures: list[bytes]) -> Served:
    command = [sys.executable, "-m", "vosr_jax.cli", "serve", "--api-only", "--port", "0"]
    command += ["-m", o.model, "--queue", str(o.queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
            while _get(port, "/readyz")[0] != 200:
                time.sleep(0.2)
            served = Served(resident=[_resident(port)])
            _post(port, pictures[0])
            served.resident.append(_resident(port))
            _load(o, port, pictures, served)
            served.resident.append(_resident(port))
            with concurrent.futures.ThreadPoolExecutor(64) as pool:
                codes = pool.map(lambda i: _burst(port, pictures[0], i), range(o.burst))
                served.burst.update(codes)
            while b"vosr_places_taken 0.0" not in _get(port, "/metrics")[1]:
                time.sleep(0.2)
            served.resident.append(_resident(port))
            process.send_signal(signal.SIGTERM)
            if process.wait(60):
                sys.exit("the service did not end well")
        finally:
            process.kill()
    return served


def _load(o: argparse.Namespace, port: int, pictures: list[bytes], served: Served) -> None:
    def client(picture: bytes) -> tuple[bytes, float, int]:
        refused = 0
        while True:
            began = time.monotonic()
            status, body, wait = _post(port, picture)
            if status == 200:
                return body, time.monotonic() - began, refused
            if status != 503:
                sys.exit(f"{status}: {body!r}")
            refused += 1
            time.sleep(wait)

    cpu, began = _metric(port, "process_cpu_seconds_total"), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(o.clients) as pool:
        for body, seconds, refused in pool.map(client, pictures):
            served.results.append(body)
            served.seconds.append(seconds)
            served.refused += refused
    served.wall = time.monotonic() - began
    served.cpu = _metric(port, "process_cpu_seconds_total") - cpu


def _burst(port: int, picture: bytes, number: int) -> str:
    if number % 10:
        return str(_post(port, picture)[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = _body(picture)
    connection.request("POST", "/v1/upscale", body, _FORM)
    connection.close()
    return "cut off"


def _body(picture: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    return head + picture + b"\r\n--b--\r\n"


def _post(port: int, picture: bytes) -> tuple[int, bytes, float]:
    """(status, body, seconds until another try)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/upscale", _body(picture), _FORM)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, float(answer.headers.get("Retry-After", 0))


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def _metric(port: int, name: str) -> float:
    lines = _get(port, "/metrics")[1].decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _resident(port: int) -> int:
    return round(_metric(port, "process_resident_memory_bytes") / 1e6)


def alone(folder: Path, model: str) -> dict[str, float]:
    """Seconds for the folder's pictures through one Upscaler, whose programs are there already."""
    from vosr_jax import Upscaler
    from vosr_jax.files.photo_writing import encode

    upscaler = Upscaler.from_pretrained(model)
    files = sorted(folder.glob("*.png"))
    contents = [file.read_bytes() for file in files]
    settings = {"tile_size": "auto", "output": "photo", "progress": lambda share: None}
    upscaler(contents[0], **settings)
    began, cpu, made = time.monotonic(), time.process_time(), []
    for content, file in zip(contents, files, strict=True):
        made.append((encode(upscaler(content, **settings), file), file))
    passed = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
    for data, file in made:
        file.with_name(f"{file.stem}-alone.png").write_bytes(data)
    return passed


def _picture(seed: int, side: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def _at(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


if __name__ == "__main__":
    main()
