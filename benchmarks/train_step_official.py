"""The official side of benchmarks/train_step.py, run by a Python with the official packages.

It reads one JSON line a command from standard input and answers with one: {"do": "step" | "peak" |
"encode" | "tokens" | "denoise" | "update"} or {"do": "flops", "of": one of these}. The official
code stays in its own checkout; SD 2.1's encoder is diffusers', DINOv2 is timm's, both of random
weights and called as the official loop calls them.
"""

import argparse
import copy
import json
import sys
import time
import types

from distill_step_official import official_code
from process_memory import peak_memory


class Side:
    """The official training step once a degraded pair is there."""

    def __init__(self, folder: str, options: dict):
        import timm
        import torch
        from diffusers import AutoencoderKL

        torch.manual_seed(0)
        torch.set_num_threads(options["threads"])
        self.options = options
        network, method = official_code(folder)
        self.method = method(
            time_dist=["uniform", 0, 1.0],
            cfg_ratio=0.1,
            cfg_scale=0.5,
            accelerator=types.SimpleNamespace(device="cpu"),
            args=types.SimpleNamespace(
                cond_strength_aelq_list=[5, 1],
                weak_cond_strength_aelq=0.1,
                weak_cond_strength_aelq_list=[0.05, 0.25],
            ),
        )
        side = options["crop_size"]
        self.denoiser = network(
            input_size=side // 8,
            in_channels=8,
            out_channels=4,
            hidden_size=options["width"],
            depth=options["depth"],
            num_heads=options["heads"],
            use_qknorm=True,
            use_swiglu=True,
            use_rope=True,
            use_rmsnorm=True,
            z_dims=768,
            encdim_ratio=3,
        )
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.denoiser.parameters(), lr=5e-5, betas=(0.9, 0.95), weight_decay=0.01
        )
        self.autoencoder = (
            AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
                sample_size=side,
            )
            .eval()
            .requires_grad_(False)
        )
        self.encoder = timm.create_model(
            "vit_base_patch14_dinov2", pretrained=False, num_classes=0, img_size=448
        )
        self.encoder.eval().requires_grad_(False)
        rows = options["rows"]
        self.hq, self.lq = (torch.rand(rows, 3, side, side) * 2 - 1 for _ in range(2))
        self.latents = torch.randn(2, rows, 4, side // 8, side // 8)
        self.visual = torch.randn(rows, 1024, 768)

    def encode(self):
        """Latents of both pictures."""
        import torch

        with torch.no_grad():
            both = torch.cat([self.lq, self.hq], dim=0)
            return self.autoencoder.encode(both).latent_dist.sample() * 0.18215

    def tokens(self):
        """Tokens of the ninth block; all twelve are run."""
        import torch

        with torch.no_grad():
            x = (0.5 * self.lq + 0.5) * 255 / 255.0
            x = torch.nn.functional.interpolate(x, 448, mode="bicubic").clip(0.0, 1.0)
            mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
            x = self.encoder._pos_embed(self.encoder.patch_embed(x))
            layers = []
            for block in self.encoder.blocks:
                x = block(x)
                layers.append(x[:, 1:])
            self.encoder.norm(x)
            return layers[8]

    def denoise(self, latents=None, tokens=None) -> None:
        """Loss and its gradient."""
        lq, hq = self.latents if latents is None else latents
        tokens = self.visual if tokens is None else tokens
        _, loss = self.method.loss_fm(self.denoiser, lq, hq, [tokens])
        loss.backward()

    def update(self) -> None:
        """Clipping, AdamW, EMA."""
        import torch

        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.denoiser.parameters(), strict=True)
            for average, parameter in pairs:
                average.mul_(0.9999).add_(parameter, alpha=1 - 0.9999)

    def step(self) -> None:
        """Everything, as the official loop does it."""
        tokens = self.tokens()
        self.denoise(self.encode().chunk(2, dim=0), tokens)
        self.update()

    def flops(self, of: str) -> int:
        """Matrix products, convolutions and attention of a part."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            getattr(self, of)()
        self.optimizer.zero_grad(set_to_none=True)
        return counter.get_total_flops()

    def answer(self, command: dict) -> dict:
        """Do one command."""
        import torch

        what = command["do"]
        if what == "flops":
            return {"flops": self.flops(command["of"])}
        if what == "peak":
            return {"peak": peak_memory()}
        if what == "update":
            for parameter in self.denoiser.parameters():
                parameter.grad = torch.ones_like(parameter)
        begin = time.perf_counter()
        getattr(self, what)()
        seconds = time.perf_counter() - begin
        self.optimizer.zero_grad(set_to_none=True)
        return {"seconds": seconds}


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
