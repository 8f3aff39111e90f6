"""Writing a model in the official layout, if the official network can represent it."""

from pathlib import Path, PurePosixPath
from typing import Any

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.files import local_or_epath, whole_folder, write_json
from vosr_jax.models.autoencoders.weights import read_light
from vosr_jax.models.lightning_dit.weights import entries, rotary_buffers
from vosr_jax.parameters.safetensors_files import SHARD_BYTES, write_safetensors
from vosr_jax.parameters.tensors import name_officially
from vosr_jax.parameters.torch_writer import write_torch_zip
from vosr_jax.weights.convert import DIFFUSERS_STEM, cast_tensors, facts_of, write_part
from vosr_jax.weights.manifest import write_manifest
from vosr_jax.weights.model_names import AUTOENCODERS, ENCODER_FOLDER, ENCODERS, LIGHT_DECODER
from vosr_jax.weights.package import Package, Part

_CHECKPOINTS = "preset/ckpts"


def write_official(
    package: Package, folder: str | Path, *, dtype: str | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Write a model in the official layout; the official commands run in the folder.

    Args:
      package: the model.
      folder: must not exist, or be empty; it appears complete or not at all. The checkpoint goes
        to preset/ckpts/NAME, the frozen networks to where the official code looks for them.
      dtype: type of the denoiser's tensors, one of `DTYPES`; None keeps their types.

    Returns:
      (the checkpoint's folder, notes: what else the official command needs).

    Raises:
      UserError: the official network cannot represent this one, or the folder cannot be written.
    """
    reason = unofficial(package.config)
    if reason is not None:
        raise UserError(
            f"{package.name} cannot be written in the official layout, whose network knows "
            f"nothing like it: {reason}"
        )
    table = entries(package.config.model_settings())
    by_path = {e.ours: package.parameters[".".join(map(str, e.ours))] for e in table}
    named = name_officially(by_path, table)
    if dtype is None:
        named = {n: t.astype(package.narrow.get(n, t.dtype), copy=False) for n, t in named.items()}
    tensors = cast_tensors(named, dtype)
    args, notes = _official_args(package)
    checkpoint = PurePosixPath(_CHECKPOINTS, package.name)
    with whole_folder(folder) as draft:
        home = draft / checkpoint
        write_json(home / "args.json", args)
        buffers = package.buffers or rotary_buffers(package.config.model_settings())
        content = tensors | buffers
        # The official reader takes a single file; it does not know shards.
        total = sum(tensor.nbytes for tensor in content.values())
        write_safetensors(home / "checkpoints", "ema_model", content, total)
        notes += _write_official_parts(draft, package, args)
        write_manifest(draft, facts_of(package, tensors))
    return local_or_epath(folder) / checkpoint, tuple(notes)


def _official_args(package: Package) -> tuple[dict[str, Any], list[str]]:
    """(args.json, notes)."""
    if package.args is None:
        args = args_of_config(package.config)
        command = f"inference_vosr.py --cfg_scale {args['cfg_scale']:g}"
        if "distill_type" in args:
            command = "inference_vosr_onestep.py"
        notes = [
            f"run it with {command} --infer_steps {args['infer_steps']}; the official commands do "
            "not take these from args.json"
        ]
        return args, notes
    args, notes = dict(package.args), []
    default = AUTOENCODERS[package.config.autoencoder.kind]
    place = PurePosixPath(args.get("ae_path") or default)
    if place.is_absolute() or ".." in place.parts:
        args["ae_path"] = default
        notes.append(f"ae_path was {place}, outside the folder, and is {default} now")
    return args, notes


def _write_official_parts(draft: Path, package: Package, args: dict[str, Any]) -> list[str]:
    """Write the frozen networks and return what is still missing."""
    kind, notes = package.config.autoencoder.kind, []
    if package.autoencoder is not None:
        place = draft / (args.get("ae_path") or AUTOENCODERS[kind])
        place = place / "vae" if kind == "sd2" else place
        write_part(place, package.autoencoder, DIFFUSERS_STEM, SHARD_BYTES)
    light = package.light_decoder or _light_beside(package)
    if light is not None:
        file = draft / LIGHT_DECODER
        file.parent.mkdir(parents=True, exist_ok=True)
        # The official code takes these four values from the file as they are.
        config = {"in_channels": 4, "out_channels": 3, **(light.config or {})}
        write_torch_zip(file, {"config": config, "model_state_dict": light.tensors})
    elif kind == "sd2":
        notes.append(f"the official command also needs {LIGHT_DECODER} of the release")
    if package.encoder is not None:
        file = draft / ENCODER_FOLDER / ENCODERS[package.config.encoder.kind]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_torch_zip(file, package.encoder.tensors)
        if package.encoder.config is not None:
            write_json(file.parent / "config.json", package.encoder.config)
    return notes


def _light_beside(package: Package) -> Part | None:
    """The light decoder in the autoencoder's folder, which the official command also reads."""
    own = package.config.autoencoder
    file = Path(str(own.path)).parent / PurePosixPath(LIGHT_DECODER).name
    if own.kind != "sd2" or not file.is_file():
        return None
    config, tensors = read_light(file)
    return Part(tensors, config)


def args_of_config(config: Config) -> dict[str, Any]:
    """Convert our settings to an args.json that the official commands accept.

    Args:
      config: config of a denoiser that the official code can run, see `unofficial`.

    Returns:
      Every key that inference_vosr.py and inference_vosr_onestep.py read.
    """
    c, g = config, config.guidance
    has_r = c.model.r_embedding
    one_step = has_r or (g.kind == "none" and c.sampling.steps == 1)
    weak = list(g.weak_strength_range) if g.kind == "restoration" else [0.0, 0.0]
    args: dict[str, Any] = {
        "resolution": c.data.crop_size,
        "patch_size": c.model.patch_size,
        "mlp_ratio": c.model.mlp_ratio,
        "use_qknorm": c.model.qk_norm,
        "use_swiglu": c.model.swiglu,
        "use_rope": c.model.rotary,
        "use_rmsnorm": c.model.rms_norm,
        "wo_shift": False,
        "dim": c.model.width,
        "depth": c.model.depth,
        "num_heads": c.model.heads,
        "ae_type": c.autoencoder.kind,
        "ae_path": AUTOENCODERS[c.autoencoder.kind],
        "time_dist": [
            *(c.objective.time_distribution, c.objective.time_mu, c.objective.time_sigma)
        ],
        "cfg_ratio": g.drop_rate,
        "cfg_scale": 1.0 if g.kind == "none" else g.scale,
        "cond_strength_aelq_list": list(g.condition_strength),
        "dinov2_size": c.encoder.size,
        "enc_type": c.encoder.kind,
        "enc_dim": c.model_settings().token_width,
        "layer_dinov2b_list": [c.encoder.block],
        "interp_type": "lin",
        "a": 1.0,
        "b": 1.0,
        "use_pos": False,
        "encdim_ratio": c.model.token_hidden_ratio,
        "t_start": g.interval[0],
        "t_end": g.interval[1],
        "infer_steps": c.sampling.steps,
        "auxiliary_time_cond": has_r,
    }
    if c.autoencoder.kind == "sd2":
        args["lwdecoder_path"] = LIGHT_DECODER
    if has_r or not one_step:
        args["weak_cond_strength_aelq_list"] = weak
    if has_r:
        args |= {"distill_type": "rcgm", "u_weight": 1.0, "weak_cond_strength_aelq": 0.1}
    elif one_step:
        args["distill_type"] = "onestep"
    return args


def unofficial(config: Config) -> str | None:
    """Why the official code cannot run a denoiser of this config; None if it can."""
    c = config
    rules = [
        (
            c.model.detail_width == 0,
            f"it has a detailer (model.detail_width={c.model.detail_width})",
        ),
        (c.autoencoder.kind in AUTOENCODERS, f"its autoencoder is {c.autoencoder.kind}"),
        (c.encoder.kind in ENCODERS, f"its visual encoder is {c.encoder.kind}"),
        (
            (c.objective.prediction, c.objective.endpoint) == ("velocity", "hr"),
            f"it predicts the {c.objective.prediction} of {c.objective.endpoint}",
        ),
        (c.model.rescale_positions, "its rotary positions are not rescaled"),
        (c.sampling.schedule == "linear", f"its schedule is {c.sampling.schedule}"),
    ]
    reasons = [reason for holds, reason in rules if not holds]
    return ", ".join(reasons) or None
