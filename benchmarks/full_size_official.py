"""The official one-step program's side of benchmarks/full_size.py, run by a Python that has torch.

    PYTHON full_size_official.py weights|pictures OFFICIAL DINOV2 FOLDER RELEASE INPUTS RESULTS

`weights` writes random weights of the released sizes in the released layout below FOLDER;
`pictures` runs the official command itself there, on every picture of INPUTS. OFFICIAL and DINOV2
are checkouts of cswry/VOSR and facebookresearch/dinov2. What the command would take from packages
that are missing, from the network or from later versions of itself is put in its place here: the
posterior's mode, `auxiliary_time_cond` as args.json has it, and DINOv2 from DINOV2. The last line
of standard output is a JSON object.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
from official_modules import prepare, stand_in

# Beside the arguments of the networks: what the command reads from args.json.
_COMMON = dict(
    infer_steps=1,
    resolution=512,
    patch_size=2,
    mlp_ratio=4,
    use_qknorm=True,
    use_swiglu=True,
    use_rope=True,
    use_rmsnorm=True,
    wo_shift=False,
    time_dist=["uniform", 0, 1.0],
    cfg_ratio=0.1,
    cfg_scale=0.5,
    interp_type="lin",
    dinov2_size=448,
    encdim_ratio=3,
    t_start=0,
    t_end=1,
)
RELEASES = {
    "0.5B": _COMMON
    | dict(
        folder="VOSR_0.5B_os",
        dim=1024,
        depth=28,
        num_heads=16,
        ae_type="sd2",
        enc_type="dinov2b",
        enc_dim=768,
        layer_dinov2b_list=[8],
        auxiliary_time_cond=True,
        distill_type="rcgm",
    ),
    "2.0": _COMMON
    | dict(
        folder="VOSR2",
        dim=1536,
        depth=36,
        num_heads=24,
        ae_type="qwen",
        enc_type="dinov2l",
        enc_dim=1024,
        layer_dinov2b_list=[17],
        auxiliary_time_cond=False,
        distill_type="onestep",
    ),
}
_SD_BLOCKS = [128, 256, 512, 512]
_SD_CONFIG = dict(
    block_out_channels=_SD_BLOCKS,
    down_block_types=["DownEncoderBlock2D"] * len(_SD_BLOCKS),
    up_block_types=["UpDecoderBlock2D"] * len(_SD_BLOCKS),
    latent_channels=4,
    layers_per_block=2,
    sample_size=512,
    scaling_factor=0.18215,
)
_LIGHT = dict(
    in_channels=4, out_channels=3, block_out_channels=[64, 128, 256, 256], layers_per_block=2
)
# A decoded picture's deviation, of [-1, 1]: that of an ordinary photograph.
_CONTRAST = 0.45


def _without_torchvision() -> None:
    """The three of its classes that the command uses, on one 8-bit RGB picture."""
    import torch
    from PIL import Image

    class ToTensor:
        def __call__(self, picture):
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

    class ToPILImage:
        def __call__(self, tensor):
            levels = tensor.mul(255).byte().permute(1, 2, 0).numpy()
            return Image.fromarray(levels)

    class Normalize:
        def __init__(self, mean, std):
            self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))

        def __call__(self, tensor):
            return (tensor - self.mean) / self.std

    stand_in(
        "torchvision.transforms", ToTensor=ToTensor, ToPILImage=ToPILImage, Normalize=Normalize
    )


def encoder_of(kind: str):
    """DINOv2 with random weights, as its hub makes it."""
    from dinov2.hub import backbones

    name = {"dinov2b": "dinov2_vitb14", "dinov2l": "dinov2_vitl14"}[kind]
    encoder = getattr(backbones, name)(pretrained=False)
    return name, encoder


def network_of(settings: dict):
    """The official denoiser of a release."""
    from models.lightningdit import LightningDiT

    channels = {"sd2": 4, "qwen": 16}[settings["ae_type"]]
    names = ("use_qknorm", "use_swiglu", "use_rope", "use_rmsnorm", "wo_shift")
    return LightningDiT(
        input_size=settings["resolution"] // 8,
        patch_size=settings["patch_size"],
        in_channels=2 * channels,
        out_channels=channels,
        hidden_size=settings["dim"],
        depth=settings["depth"],
        num_heads=settings["num_heads"],
        mlp_ratio=settings["mlp_ratio"],
        z_dims=settings["enc_dim"],
        encdim_ratio=settings["encdim_ratio"],
        auxiliary_time_cond=settings["auxiliary_time_cond"],
        num_fused_layers=len(settings["layer_dinov2b_list"]),
        **{name: settings[name] for name in names},
    )


def _enliven(network, draw) -> None:
    """Nothing stays at the zero that training begins with."""
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02, generator=draw)


def _with_contrast(decode, last, draw, channels: int) -> None:
    """Scale the last convolution until a random latent's picture has a photograph's contrast."""
    import torch

    with torch.no_grad():
        latent = torch.randn(1, channels, 16, 16, generator=draw)
        last.weight.mul_(_CONTRAST / decode(latent).std())


def write_weights(folder: Path, settings: dict) -> dict:
    """Random weights of all networks of a release."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1)
    root = folder / "preset" / "ckpts"
    out = root / settings["folder"]
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    told = {key: value for key, value in settings.items() if key != "folder"}
    (out / "args.json").write_text(json.dumps(told, indent=1))
    network = network_of(settings)
    _enliven(network, draw)
    count = sum(p.numel() for p in network.parameters())
    save_file(network.state_dict(), out / "checkpoints" / "ema_model.safetensors")
    del network

    name, encoder = encoder_of(settings["enc_type"])
    (root / "torch_cache" / "checkpoints").mkdir(parents=True, exist_ok=True)
    file = root / "torch_cache" / "checkpoints" / f"{name}_pretrain.pth"
    torch.save(encoder.state_dict(), file)
    del encoder

    if settings["ae_type"] == "sd2":
        from diffusers import AutoencoderKL
        from models.light_decoder import LightDecoder

        AutoencoderKL(**_SD_CONFIG).save_pretrained(root / "stable-diffusion-2-1-base" / "vae")
        light = LightDecoder(**_LIGHT)
        _with_contrast(light, light.conv_out, draw, 4)
        state = {"config": _LIGHT, "model_state_dict": light.state_dict()}
        torch.save(state, root / "sd21_lwdecoder.pth")
    else:
        from models.qwenimage_vae2d import AutoencoderKLQwenImage2D

        # Its size alone is released; the latent's statistics are made up.
        statistics = np.random.default_rng(2)
        vae = AutoencoderKLQwenImage2D(
            latents_mean=statistics.normal(0, 1, 16).round(4).tolist(),
            latents_std=statistics.uniform(1, 3, 16).round(4).tolist(),
        ).eval()
        decode = lambda latent: vae.decode(latent, return_dict=False)[0]  # noqa: E731
        _with_contrast(decode, vae.decoder.conv_out, draw, 16)
        vae.save_pretrained(root / "Qwen-Image-vae-2d")
    return {"parameters": count}


def run_command(settings: dict, inputs: Path, results: Path) -> dict:
    """The official command on a folder, its draws kept beside its results."""
    import torch
    from diffusers.models.autoencoders import vae

    vae.DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()
    import inference_vosr_onestep as program

    def hub(_, name, **__):
        found, encoder = encoder_of(settings["enc_type"])
        assert found == name
        weights = Path("preset/ckpts/torch_cache/checkpoints") / f"{name}_pretrain.pth"
        encoder.load_state_dict(torch.load(weights, map_location="cpu"))
        return encoder

    torch.hub.load = hub
    plain_network, plain_randn = program.LightningDiT, torch.randn_like
    timed = settings["auxiliary_time_cond"]

    def network(**arguments):
        return plain_network(**(arguments | {"auxiliary_time_cond": timed}))

    draws, seconds = [], []

    def randn_like(tensor, **options):
        draws.append(plain_randn(tensor, **options))
        return draws[-1]

    def pictures(paths, **_):
        for path in paths:
            begin = time.perf_counter(), time.process_time()
            yield path
            seconds.append([time.perf_counter() - begin[0], time.process_time() - begin[1]])

    program.LightningDiT, torch.randn_like, program.tqdm = network, randn_like, pictures
    checkpoint = f"preset/ckpts/{settings['folder']}"
    options = ["-c", checkpoint, "-i", str(inputs), "-o", str(results), "-u", "4"]
    sys.argv = ["inference_vosr_onestep.py", *options, "--align_method", "wavelet"]
    begin = time.perf_counter()
    program.main()
    whole = time.perf_counter() - begin
    names = sorted(p.name for p in inputs.iterdir())
    np.savez(results / "draws.npz", **{n: d.numpy() for n, d in zip(names, draws, strict=True)})
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    (made,) = (p for p in results.iterdir() if p.is_dir())
    # The command goes on over a picture's error.
    if sorted(p.name for p in made.iterdir()) != names:
        sys.exit("the official command failed; its message is above")
    return {
        "folder": str(made),
        "seconds": [clock for clock, _ in seconds],
        "cpu": [cpu for _, cpu in seconds],
        "loading": whole - sum(clock for clock, _ in seconds),
        "peak": int(peak.split()[1]) * 1024,
        "torch": torch.__version__,
    }


def main() -> None:
    """Do one of the two."""
    do, official, dinov2, folder, release, inputs, results = sys.argv[1:]
    # It looks for packages, and would take their stand-ins for them.
    import diffusers.models.autoencoders.autoencoder_kl
    import diffusers.models.unets.unet_2d_blocks  # noqa: F401

    prepare(official, dinov2)
    if importlib.util.find_spec("torchvision") is None:
        _without_torchvision()
    if do == "weights":
        told = write_weights(Path(folder), RELEASES[release])
    else:
        told = run_command(RELEASES[release], Path(inputs), Path(results))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
