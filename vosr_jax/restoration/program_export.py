"""Export a model as programs that run without this package: StableHLO (`jax.export`) and weights.

Each program is a function of weights and arrays for one tile shape, for CPU, CUDA and TPU. The
folder's README.md states the calling convention and holds a complete example.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax import export as jax_export
from safetensors.numpy import save_file

from vosr_jax.diffusion.denoiser import DirectDenoiser
from vosr_jax.diffusion.guidance import weak_condition
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.errors import UserError
from vosr_jax.files import whole_folder
from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.models.dinov2.network import visual_tokens
from vosr_jax.parameters.blueprint import Blueprint, flatten
from vosr_jax.restoration.model import RestorationModel

PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Program:
    """One function to export.

    Attributes:
      weights: {name: array}, its first argument.
      function: (weights, *arrays) -> array.
      inputs: {name: shape and dtype} of the arrays, in order.
    """

    weights: dict[str, Array]
    function: Callable[..., Array]
    inputs: dict[str, jax.ShapeDtypeStruct]

    def jitted(self) -> Any:
        """The function compiled, with products at the hardware's highest precision."""

        @jax.jit
        def run(weights: dict[str, Array], *arrays: Array) -> Array:
            with jax.default_matmul_precision("highest"):
                return self.function(weights, *arrays)

        return run


def programs_of(model: RestorationModel, tile_size: int, batch: int = 1) -> dict[str, Program]:
    """Build every program of a model, by name, in the order of use.

    Args:
      model: in float32.
      tile_size: side of the image that one call takes, in pixels of the result.
      batch: images per call.

    Returns:
      "encode", "tokens" if the model has a visual encoder, "velocity" and "decode".

    Raises:
      UserError: the model has another precision, or the side is not a multiple of the model's.
    """
    if (model.precision, model.autoencoder_precision) != ("float32", "float32"):
        raise UserError("programs are exported in float32; leave the precisions out")
    if tile_size < 1 or tile_size % model.multiple:
        raise UserError(
            f"--tile-size must be a multiple of {model.multiple} for {model.name}, not {tile_size}"
        )
    side, channels = tile_size // model.autoencoder.downscale, model.autoencoder.latent_channels
    image = _floats(batch, tile_size, tile_size, 3)
    latent, times = _floats(batch, side, side, channels), _floats(batch)
    parameterization, sampler = model.parameterization, model.sampler

    coder, with_coder = _taken_apart(model.autoencoder)
    denoiser, with_denoiser = _taken_apart(model.denoiser)
    programs = {
        "encode": Program(coder, lambda w, image: encode(with_coder(w), image), {"image": image})
    }
    conditions = {"condition": latent, "noisy": latent, "t": times, "r": times}
    if model.encoder is not None:
        encoder, with_encoder = _taken_apart(model.encoder)
        size, block = model.token_size, model.token_block

        def tokens_of(weights: dict[str, Array], image: Array) -> Array:
            return visual_tokens(with_encoder(weights), image, size, block)

        programs["tokens"] = Program(encoder, tokens_of, {"image": image})
        made = jax.eval_shape(tokens_of, encoder, image)
        conditions["tokens"] = jax.ShapeDtypeStruct(made.shape, made.dtype)
    if model.guided and not sampler.r_input:
        conditions |= {"guidance_scale": _floats(), "weak_strength": _floats()}
    velocity = _velocity_of(with_denoiser, list(conditions), parameterization, sampler.r_input)
    programs["velocity"] = Program(denoiser, velocity, conditions)

    def decoded(weights: dict[str, Array], z: Array, lq_latent: Array) -> Array:
        picture = decode(with_coder(weights), parameterization.to_latent(z, lq_latent))
        return jnp.clip(picture, -1.0, 1.0)

    programs["decode"] = Program(coder, decoded, {"z": latent, "lq_latent": latent})
    return programs


def _velocity_of(
    with_denoiser: Callable[[dict[str, Array]], Any],
    inputs: Sequence[str],
    parameterization: Parameterization,
    r_input: bool,
) -> Callable[..., Array]:
    """The function of the velocity program; it is guided if the inputs have a guidance scale."""

    def velocity(weights: dict[str, Array], *arrays: Array) -> Array:
        given = dict(zip(inputs, arrays, strict=True))
        direct = DirectDenoiser(with_denoiser(weights), parameterization)
        times = direct.times(given["t"], given["r"] if r_input else None)
        condition, noisy, tokens = given["condition"], given["noisy"], given.get("tokens")
        if "guidance_scale" not in given:
            return direct.velocity(condition, noisy, times, tokens)
        weak = weak_condition(condition, None, given["weak_strength"])[0]
        return direct.guided(condition, weak, noisy, times, tokens, None, given["guidance_scale"])

    return velocity


def export_programs(
    model: RestorationModel, folder: Path, tile_size: int = 512, batch: int = 1
) -> Path:
    """Write a model's programs, weights, program.json and README.md.

    Args:
      model, tile_size, batch: as in `programs_of`.
      folder: must not exist or must be empty; it is written completely or not at all.

    Returns:
      The folder.

    Raises:
      UserError: as in `programs_of`, or the folder cannot be written.
    """
    programs = programs_of(model, tile_size, batch)
    with whole_folder(folder) as draft:
        described = {}
        for name, program in programs.items():
            shapes = {
                key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in program.weights.items()
            }
            exported = jax_export.export(program.jitted(), platforms=PLATFORMS)(
                shapes, *program.inputs.values()
            )
            (draft / f"{name}.stablehlo").write_bytes(exported.serialize())
            described[name] = {
                "inputs": {key: _described(x) for key, x in program.inputs.items()},
                "output": _described(exported.out_avals[0]),
                "weights": "autoencoder" if name == "decode" else _part(name),
            }
        for part in {entry["weights"] for entry in described.values()}:
            weights = next(
                programs[name].weights
                for name, entry in described.items()
                if entry["weights"] == part
            )
            arrays = {key: np.asarray(x) for key, x in weights.items()}
            save_file(arrays, draft / f"{part}.safetensors")
        facts = {
            "model": model.name,
            "tile_size": tile_size,
            "batch": batch,
            "platforms": list(PLATFORMS),
            "jax": jax.__version__,
            "calling_convention": exported.calling_convention_version,
            "sampler": dataclasses.asdict(model.sampler),
            "times": model.sampler.times().tolist(),
            "programs": described,
            "sha256": {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted(draft.iterdir())
            },
        }
        (draft / "program.json").write_text(json.dumps(facts, indent=1) + "\n")
        (draft / "README.md").write_text(_readme(facts))
    return folder


def _part(name: str) -> str:
    return {"encode": "autoencoder", "tokens": "encoder", "velocity": "denoiser"}[name]


def _taken_apart(network: Any) -> tuple[dict[str, Array], Callable[[dict[str, Array]], Any]]:
    """A network's parameters by name, and the function that puts them back."""
    return flatten(network), Blueprint(lambda: network).merge


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _described(array: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


_EXAMPLE = '''import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

folder = Path(FOLDER)
facts = json.loads((folder / "program.json").read_text())
programs, weights = {}, {}
for name, entry in facts["programs"].items():
    exported = jax.export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes()))
    programs[name] = jax.jit(exported.call)
    weights[name] = jax.device_put(load_file(folder / f"{entry['weights']}.safetensors"))


def call(name, **arrays):
    given = [np.asarray(arrays[key], np.float32) for key in facts["programs"][name]["inputs"]]
    return programs[name](weights[name], *given)


def restore(image, noise):
    """image [batch, side, side, 3] in [-1, 1], enlarged already; noise of the latent's shape."""
    lq_latent = call("encode", image=image)
    arrays = {"condition": lq_latent}
    if "tokens" in programs:
        arrays["tokens"] = call("tokens", image=image)
    sampler = facts["sampler"]
    low, high = (np.float32(limit) for limit in sampler["guidance_interval"])
    z, times = noise, np.float32(facts["times"])
    for t, r in zip(times[:-1], times[1:]):
        scale = sampler["guidance_scale"] if low <= t <= high else 1.0
        arrays |= {"guidance_scale": scale, "weak_strength": sampler["weak_strength"]}
        arrays |= {"t": np.full(len(image), t), "r": np.full(len(image), r)}
        z = z - (t - r) * call("velocity", noisy=z, **arrays)
    return call("decode", z=z, lq_latent=lq_latent)
'''


def _readme(facts: dict[str, Any]) -> str:
    rows = [
        f"| `{name}` | {entry['weights']}.safetensors | "
        + ", ".join(f"{key} {x['shape']}" for key, x in entry["inputs"].items())
        + f" | {entry['output']['shape']} |"
        for name, entry in facts["programs"].items()
    ]
    side, batch = facts["tile_size"], facts["batch"]
    return f"""# {facts["model"]} as programs

They run wherever jax does ({", ".join(facts["platforms"])}) and need no other package but one that
reads safetensors. A call restores {batch} picture(s) of {side} x {side} pixels of the result.

| program | weights | inputs, float32, in this order after the weights | output, float32 |
|---|---|---|---|
{chr(10).join(rows)}

- `encode`: a picture in [-1, 1], RGB, enlarged already (bicubic, as Pillow does it), to the latent
  that the denoiser is conditioned on: the posterior's mode.
- `tokens`, where there is one: the same picture to visual tokens.
- `velocity`: condition is `encode`'s result; noisy is z at time t, standard normal noise at t = 1;
  r is the step's end. Where the program takes a guidance_scale it evaluates both branches, and 1 is
  the plain model.
- `decode`: z at t = 0 and `encode`'s result to the picture in [-1, 1].

Between them: z(r) = z(t) - (t - r) velocity, over `times` of program.json. Weights are passed as a
dictionary {{name: array}} as the file has them. Larger pictures are cut into overlapping tiles, and
their velocities are blended at every step. The programs keep jax's promise of compatibility
(calling convention {facts["calling_convention"]}, written by jax {facts["jax"]}). program.json
holds the sha256 of every file.

```python
{_EXAMPLE}```
"""
