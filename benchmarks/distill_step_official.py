"""The official side of benchmarks/distill_step.py, run by a Python that has torch and einops.

It reads one JSON line a command from standard input and answers with one: {"do": "flops" |
"step" | "block"}. The official code stays in its own checkout.
"""

import argparse
import copy
import json
import sys
import time
import types

from official_modules import prepare


def official_code(folder: str):
    """(LightningDiT, VOSR) of the checkout."""
    import torch

    # A GPU's random state.
    torch.cuda.get_rng_state = lambda *_: None
    torch.cuda.set_rng_state = lambda *_: None
    prepare(folder)
    from models.lightningdit import LightningDiT
    from vosr import VOSR

    return LightningDiT, VOSR


class Side:
    """Student, teacher, optimizer and average of the official training loop."""

    def __init__(self, folder: str, options: dict):
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(options["threads"])
        self.options = options
        network, method = official_code(folder)
        self._make = network
        args = types.SimpleNamespace(
            cond_strength_aelq_list=[5, 1],
            weak_cond_strength_aelq=0.1,
            weak_cond_strength_aelq_list=[0.05, 0.25],
            rcgm_delta_t=0.01,
            rcgm_n_steps=2,
        )
        self.method = method(
            time_dist=["uniform", 0, 1.0],
            cfg_ratio=0.1,
            cfg_scale=0.5,
            accelerator=types.SimpleNamespace(device="cpu"),
            args=args,
        )
        rows, side = options["rows"], options["side"]
        self.lq = torch.randn(rows, 4, side, side)
        self.hq = torch.randn(rows, 4, side, side)
        self.tokens = torch.randn(rows, options["tokens"], options["token_width"])
        self._ready_for(options["depth"])

    def _ready_for(self, depth: int) -> None:
        import torch

        self.student, self.teacher = self._build(depth, True), self._build(depth, False)
        self.teacher.requires_grad_(False)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=2e-5, betas=(0.9, 0.95), weight_decay=0.01
        )

    def _build(self, depth: int, auxiliary: bool):
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
            auxiliary_time_cond=auxiliary,
        )

    def step(self) -> None:
        """One update, as the official loop makes it once the latents are there."""
        import torch

        _, loss = self.method.loss_fm_distill_rcgm_improved(
            self.student, self.lq, self.hq, [self.tokens], model_tea=self.teacher
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.student.parameters(), strict=True)
            for average, parameter in pairs:
                average.mul_(0.9999).add_(parameter, alpha=1 - 0.9999)

    def block(self) -> None:
        """One block's forward and backward pass."""
        import torch

        o = self.options
        rows, tokens = o["rows"], (o["side"] // 2) ** 2
        x = torch.randn(rows, tokens, o["width"], requires_grad=True)
        modulation = torch.randn(rows, 6 * o["width"])
        context = torch.randn(rows, o["tokens"], o["width"], requires_grad=True)
        y = self.student.blocks[0](x, modulation, context, self.student.feat_rope)
        y.sum().backward()
        self.optimizer.zero_grad(set_to_none=True)

    def flops(self, depth: int) -> int:
        """Matrix products and attention of a whole step at this depth."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        self._ready_for(depth)
        # The plain form of attention is two products that the counter knows on every device.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.step()
        self._ready_for(self.options["depth"])
        return counter.get_total_flops()

    def answer(self, command: dict) -> dict:
        """Do one command."""
        if command["do"] == "flops":
            return {"flops": self.flops(command["depth"])}
        begin = time.perf_counter()
        self.step() if command["do"] == "step" else self.block()
        return {"seconds": time.perf_counter() - begin}


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
