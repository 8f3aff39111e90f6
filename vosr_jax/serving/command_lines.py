"""Command lines that reproduce the page's results."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from vosr_jax.serving.fields import ENDINGS, Fields
from vosr_jax.weights import hub
from vosr_jax.weights.model_names import SHIPPED

# Precisions that `vosr upscale` uses by default.
PLAIN = ("float32", "float32")


def command_lines(
    names: Sequence[str], fields: Sequence[Fields], model: str, precisions: tuple[str, str] = PLAIN
) -> str:
    """Make the `vosr upscale` calls that give the same results, one per line.

    If there are several, each writes into its own folder.

    Args:
      names: names of the files.
      fields: as given to `visits.restore`.
      model: the model's served name.
      precisions: precisions of its denoiser and its autoencoder.
    """
    if len(fields) == 1:
        return command_line(names, fields[0], model, precisions)
    return "\n".join(
        command_line(names, given, model, precisions, f"out/{given.preset or 'own'}/")
        for given in fields
    )


def command_line(
    names: Sequence[str],
    fields: Fields,
    model: str,
    precisions: tuple[str, str] = PLAIN,
    out: str = "out/",
) -> str:
    """Make the `vosr upscale` call that gives the same results.

    Args:
      names: names of the files.
      fields: fields of all files.
      model: the model's served name; for a folder on the server a placeholder path is shown.
      precisions: precisions of its denoiser and its autoencoder.
      out: the folder for results.
    """
    endings = {ENDINGS.get(Path(name).suffix.lower().removeprefix("."), "png") for name in names}
    words = ["vosr", "upscale", *names, "-o", out, "-u", f"{fields.scale:g}", "-m"]
    known = model in SHIPPED or hub.parse(model) is not None
    words.append(model if known else f"PATH/TO/{model}")
    for flag in ("preset", "strength", "steps", "guidance_scale", "colour_fix"):
        value = getattr(fields, flag)
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    if fields.seed:
        words += ["--seed", str(fields.seed)]
    if fields.tile_size != "auto":
        words += ["--tile-size", fields.tile_size]
    for flag, precision in zip(("--precision", "--autoencoder-precision"), precisions, strict=True):
        if precision != "float32":
            words += [flag, precision]
    if len(endings) == 1 and endings != {"png"}:
        words += ["--format", endings.pop()]
    return shlex.join(words)
