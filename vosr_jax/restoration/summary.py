"""Short text summaries of a model and its memory."""

from collections.abc import Iterator
from typing import Any

import jax

from vosr_jax.restoration.loading import load_model
from vosr_jax.restoration.memory import Memory, estimate, parameter_count
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.weights.licences import of_folder
from vosr_jax.weights.manifest import verify
from vosr_jax.weights.resolve import resolve


def summarize(
    name: str, *, verified: bool = False, size: tuple[int, int] | None = None, tile_size: int = 512
) -> Iterator[str]:
    """Load a model and describe it in several texts, each made when it is asked for.

    Args:
      name: as `weights.resolve` takes it.
      verified: whether every file is checked against manifest.json's sha256 first.
      size: (width, height) of a result whose memory is described too.
      tile_size: side of the denoiser's tiles for that; 0 means no tiles.

    Raises:
      UserError: no such model, or its files are damaged.
    """
    found = resolve(name)
    if verified:
        count = verify(found.path)
        yield table([("verified", f"{count} files have the sha256 of manifest.json")])
    model = load_model(found)
    yield describe(model)
    stated = [f"{part}: {licence}" for part, licence in of_folder(found.path).items()]
    yield table([(f"{'' if i else 'licence'}", line) for i, line in enumerate(stated)])
    if size is not None:
        memory = estimate(model, size, tile_size)
        yield describe_memory(memory, size, tile_size, jax.default_backend())


def describe(model: RestorationModel) -> str:
    """Describe a model's parts, sizes and default settings."""
    settings, sampler = model.denoiser.settings, model.sampler
    guided = not sampler.r_input and sampler.guidance_scale != 1
    kind = "multi-step"
    if sampler.r_input:
        kind = "one-step (takes the interval's end)"
    elif model.one_step:
        kind = "one-step (without the interval's end)"
    guidance = "none"
    if sampler.r_input:
        guidance = "learned"
    elif guided:
        guidance = f"scale {sampler.guidance_scale:g}, weak strength {sampler.weak_strength:g}"
    networks = (model.denoiser, model.autoencoder, model.encoder)
    total = sum(map(parameter_count, networks))
    lines = [
        ("model", f"{model.name}, {kind}"),
        (
            "denoiser",
            f"{_millions(model.denoiser)}, {settings.depth} blocks of width "
            f"{settings.width}, {settings.heads} heads, tokens of {model.multiple} px",
        ),
        (
            "autoencoder",
            f"{type(model.autoencoder).__name__}, {_millions(model.autoencoder)}, "
            f"{model.autoencoder.latent_channels} channels, "
            f"{model.autoencoder.downscale} times smaller",
        ),
        (
            "visual encoder",
            "none"
            if model.encoder is None
            else f"{type(model.encoder).__name__}, {_millions(model.encoder)}, sees "
            f"{model.token_size} px, tokens after block {model.token_block}",
        ),
        ("predicts", f"{model.parameterization.prediction} of {model.parameterization.endpoint}"),
        ("steps", f"{sampler.steps}, {sampler.schedule}"),
        ("guidance", guidance),
        ("source's latent", "drawn" if model.sample_posterior else "the posterior's mode"),
        ("colour fix", model.colour_fix),
        ("weights", f"{total / 1e6:.1f}M parameters, {_bytes(4 * total)} in float32"),
        *(("note", note) for note in model.notes),
    ]
    return table(lines)


def describe_memory(memory: Memory, size: tuple[int, int], tile_size: int, backend: str) -> str:
    """Describe the result of `memory.estimate` and how it was found."""
    tile = f"tiles of {tile_size} px" if tile_size else "no tiles"
    programs = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.programs.items())
    return table(
        [
            (
                "memory",
                f"{_bytes(memory.peak)} for a result of {size[0]}x{size[1]} ({tile} in the "
                f"denoiser, encoder and decoder on the whole picture, float32, {backend})",
            ),
            ("", f"weights {_bytes(memory.parameters)}; besides them, one at a time: {programs}"),
            ("", "inputs, outputs and temporaries as XLA counts them in the compiled programs"),
        ]
    )


def table(lines: list[tuple[str, str]]) -> str:
    """Format (title, text) pairs as two columns."""
    return "\n".join(f"{title + ':' if title else '':<17}{text}" for title, text in lines)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _millions(network: Any) -> str:
    count = parameter_count(network)
    return f"{count / 1e6:.1f}M parameters" if count else "no parameters"
