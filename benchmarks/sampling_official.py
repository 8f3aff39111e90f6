"""The official network's side of benchmarks/sampling.py, run by a Python that has torch.

It reads one JSON line a command from standard input and answers with one: {"do": "flops" |
"sample" | "block", ...}. The official network stays in its own checkout.
"""

import argparse
import json
import sys
import time

from official_modules import prepare


def _official(folder: str, *, compiled: bool):
    """The official LightningDiT."""
    prepare(folder, compiled=compiled)
    from models.lightningdit import LightningDiT

    return LightningDiT


class Side:
    """The network and a guided picture's inputs."""

    def __init__(self, folder: str, options: dict):
        import torch

        torch.manual_seed(0)
        if options["threads"]:
            torch.set_num_threads(options["threads"])
        self.options = options
        self.device = "cuda" if options["gpu"] else "cpu"
        self.dtype = torch.bfloat16 if options["gpu"] else torch.float32
        self._make = _official(folder, compiled=options["compiled"])
        self.network = self._build(options["depth"]).to(self.device, self.dtype)
        if options["compiled"]:
            self.network = torch.compile(self.network)
        side, rows = options["side"], options.get("rows", 1)
        self.lq, self.noise = (self._normal(rows, 4, side, side) for _ in range(2))
        self.tokens = self._normal(rows, options["tokens"], options["token_width"])
        self.x = self._normal(2, (side // 2) ** 2, options["width"])
        self.modulation = self._normal(2, 6 * options["width"])
        self.context = self._normal(2, options["tokens"], options["width"])

    def _build(self, depth: int):
        o = self.options
        return self._make(
            input_size=o["side"],
            in_channels=8,
            out_channels=4,
            hidden_size=o["width"],
            depth=depth,
            num_heads=o["heads"],
            use_qknorm=True,
            use_swiglu=True,
            use_rope=True,
            use_rmsnorm=True,
            z_dims=o["token_width"],
            encdim_ratio=3,
        ).eval()

    def _normal(self, *shape):
        import torch

        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def _wait(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def sample(self, network, steps: int, device: str, *, guided: bool = True):
        """The official sampler's work: both branches in every step, one where not guided."""
        import torch

        z, lq, tokens = self.noise.to(device), self.lq.to(device), self.tokens.to(device)
        times = torch.linspace(1.0, 0.0, steps + 1, device=device, dtype=self.dtype)
        rows = len(z)
        if not guided:
            for i in range(steps):
                velocity = network(torch.cat([lq, z], 1), times[i].repeat(rows), z=[tokens])
                z = z - (times[i] - times[i + 1]) * velocity
            return z
        tokens = torch.cat([tokens, torch.zeros_like(tokens)])
        for i in range(steps):
            pairs = torch.cat([torch.cat([lq, z], 1), torch.cat([0.15 * lq, z], 1)])
            full, weak = network(pairs, times[i].repeat(2 * rows), z=[tokens]).chunk(2)
            z = z - (times[i] - times[i + 1]) * (weak + 0.5 * (full - weak))
        return z

    def flops(self, depth: int, steps: int) -> int:
        """Matrix products and attention of a whole run, on shapes alone."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"):
            network = self._build(depth).to(self.dtype)
        # The plain form of attention is two products that the counter knows on every device.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.sample(network, steps, "meta")
        return counter.get_total_flops()

    def answer(self, command: dict) -> dict:
        """Do one command."""
        import torch

        with torch.no_grad():
            if command["do"] == "flops":
                return {"flops": self.flops(command["depth"], command["steps"])}
            self._wait()
            start, used = time.perf_counter(), time.process_time()
            if command["do"] == "sample":
                guided = command.get("guided", True)
                self.sample(self.network, command["steps"], self.device, guided=guided)
            else:
                block, rotary = self.network.blocks[0], self.network.feat_rope
                block(self.x, self.modulation, self.context, rotary)
            self._wait()
            clock, cpu = time.perf_counter() - start, time.process_time() - used
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return {"clock": clock, "cpu": cpu, "peak": peak}


def main() -> None:
    """Answer commands until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    side = Side(arguments.folder, arguments.options)
    import torch

    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(side.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
