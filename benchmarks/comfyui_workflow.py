"""Run the node pack inside a real ComfyUI, without a screen, and compare with the Upscaler.

    python benchmarks/comfyui_workflow.py PATH/TO/ComfyUI [--keep FOLDER]

takes the Python that runs ComfyUI, with vosr_jax installed beside. ComfyUI starts on loopback with
a folder of its own for pictures, carries out integrations/comfyui/workflow.json, is cancelled in
the middle of a picture, and is asked for what cannot be done.
"""

import argparse
import asyncio
import contextlib
import copy
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
PACK = ROOT / "integrations" / "comfyui"
PHOTO = ROOT / "assets" / "demo" / "coffee.png"
_SECONDS = 300


class Comfy:
    """A running ComfyUI.

    Attributes:
      folder: its base directory.
      events: what it has told since the last workflow was sent, as (type, data).
    """

    def __init__(self, session: aiohttp.ClientSession, address: str, folder: Path):
        self._session, self._address, self.folder = session, address, folder
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def get(self, path: str) -> Any:
        """A GET request's JSON."""
        async with self._session.get(self._address + path) as answer:
            return await answer.json()

    async def post(self, path: str, body: Any = None) -> tuple[int, str]:
        """A POST request's status and text."""
        async with self._session.post(self._address + path, json=body) as answer:
            return answer.status, await answer.text()

    async def listen(self) -> None:
        """Keep what it tells, until cancelled."""
        async with self._session.ws_connect(f"{self._address}/ws?clientId=check") as told:
            async for message in told:
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    self.events.append((event["type"], event["data"]))

    async def send(self, workflow: dict[str, Any]) -> tuple[int, str]:
        """Line a workflow up; its status and what is said of it."""
        self.events.clear()
        return await self.post("/prompt", {"prompt": workflow, "client_id": "check"})

    async def until(self, *types: str) -> dict[str, Any]:
        """Wait for an event of one of these types."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            for kind, data in self.events:
                if kind in types:
                    return {"type": kind, **data}
            await asyncio.sleep(0.05)
        raise TimeoutError(f"none of {', '.join(types)} within {_SECONDS} s")


@contextlib.asynccontextmanager
async def running(comfyui: Path, folder: Path) -> AsyncIterator[Comfy]:
    """A ComfyUI on a free port of loopback, whose folders lie in `folder`."""
    for name in ("custom_nodes", "input", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "custom_nodes" / "vosr").symlink_to(PACK)
    shutil.copy(PHOTO, folder / "input" / "photo.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    words += ["--base-directory", str(folder), "--disable-api-nodes"]
    words += ["--database-url", "sqlite:///:memory:"]
    with open(folder / "comfyui.log", "wb") as log:
        process = subprocess.Popen(words, cwd=comfyui, stdout=log, stderr=subprocess.STDOUT)
    try:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            comfy = Comfy(session, f"http://127.0.0.1:{port}", folder)
            await _answers(comfy, process)
            listening = asyncio.create_task(comfy.listen())
            yield comfy
            listening.cancel()
    finally:
        process.terminate()
        process.wait(30)


async def _answers(comfy: Comfy, process: subprocess.Popen) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            await comfy.get("/system_stats")
            return
        except aiohttp.ClientError:
            if process.poll() is not None or time.monotonic() > end:
                log = (comfy.folder / "comfyui.log").read_text(errors="replace")
                raise SystemExit(f"ComfyUI did not start:\n{log[-3000:]}") from None
            await asyncio.sleep(0.5)


async def upscaled(comfy: Comfy, workflow: dict[str, Any]) -> float:
    """Carry the workflow out; its seconds. Prints how far the picture is from the Upscaler's."""
    began = time.monotonic()
    status, said = await comfy.send(workflow)
    if status != 200:
        raise SystemExit(f"the workflow was refused: {said}")
    end = await comfy.until("execution_success", "execution_error")
    if end["type"] == "execution_error":
        raise SystemExit(f"the workflow failed: {end['exception_message']}")
    return time.monotonic() - began


def compare(comfy: Comfy, number: int, **settings: Any) -> None:
    """Compare ComfyUI's picture of that number with the Upscaler's, to the grey level."""
    from vosr_jax import Upscaler

    expected = Upscaler.from_pretrained("nano-onestep", "auto", "auto")(
        comfy.folder / "input" / "photo.png", tile_size="auto", **settings
    )
    file = comfy.folder / "output" / f"vosr_{number:05d}_.png"
    made, wanted = (np.asarray(x.convert("RGB"), int) for x in (Image.open(file), expected))
    if made.shape != wanted.shape:
        raise SystemExit(f"{file.name} is {made.shape}, the Upscaler's {wanted.shape}")
    apart = np.abs(made - wanted).max()
    print(f"{file.name}: {made.shape[1]} x {made.shape[0]}, apart by {apart} grey levels at most")
    if apart:
        raise SystemExit("the pictures differ")


async def cancelled(comfy: Comfy, workflow: dict[str, Any]) -> None:
    """Cancel a long run in the middle; ComfyUI must say so within seconds."""
    workflow["2"]["inputs"]["model"] = "nano"
    workflow["3"]["inputs"] |= {"steps": 200, "scale": 8.0}
    await comfy.send(workflow)
    await comfy.until("progress")
    began = time.monotonic()
    await comfy.post("/interrupt")
    end = await comfy.until("execution_interrupted", "execution_success")
    print(f"cancelled: {end['type']} {time.monotonic() - began:.1f} s after the click")
    if end["type"] != "execution_interrupted":
        raise SystemExit("the run was not broken off")


async def refused(comfy: Comfy, workflow: dict[str, Any]) -> None:
    """Ask for what cannot be done, and print what ComfyUI says."""
    for node, given in (
        ("3", {"scale": 9.0}),
        ("2", {"model": "no-such-model"}),
        ("3", {"preset": "by guidance_scale"}),
    ):
        bad = copy.deepcopy(workflow)
        bad[node]["inputs"] |= given
        status, said = await comfy.send(bad)
        if status != 200:
            found = json.loads(said)["node_errors"][node]["errors"]
            said = "; ".join(f"{error['message']}: {error['details']}" for error in found)
        else:
            said = (await comfy.until("execution_error"))["exception_message"].strip()
        print(f"{given}: {said}")


async def check(comfyui: Path, folder: Path) -> None:
    """All of it, in a folder that is empty."""
    workflow = json.loads((PACK / "workflow.json").read_text())
    began = time.monotonic()
    async with running(comfyui, folder) as comfy:
        stats = (await comfy.get("/system_stats"))["system"]
        known = [name for name in await comfy.get("/object_info") if name.startswith("Vosr")]
        print(f"ComfyUI {stats['comfyui_version']}, PyTorch {stats['pytorch_version']}, ", end="")
        print(f"up in {time.monotonic() - began:.0f} s with {', '.join(known)}")
        seconds = await upscaled(comfy, workflow)
        shares = [d["value"] / d["max"] for kind, d in comfy.events if kind == "progress"]
        print(f"first run {seconds:.1f} s; the bar moved {len(shares)} times, to {max(shares):.0%}")
        compare(comfy, 1, scale=4)
        again = copy.deepcopy(workflow)
        again["3"]["inputs"] |= {"seed": 7, "scale": 2.5, "steps": 2}
        print(f"another seed, factor and steps: {await upscaled(comfy, again):.1f} s")
        compare(comfy, 2, scale=2.5, seed=7, steps=2)
        await cancelled(comfy, copy.deepcopy(workflow))
        await refused(comfy, workflow)


def main() -> None:
    """Run the check from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("comfyui", type=Path, help="a checkout of ComfyUI")
    parser.add_argument("--keep", type=Path, help="a new folder for pictures and ComfyUI's log")
    given = parser.parse_args()
    if given.keep is None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(check(given.comfyui, Path(folder)))
    else:
        asyncio.run(check(given.comfyui, given.keep.resolve()))


if __name__ == "__main__":
    main()
