"""The page's pictures at the command line."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from vosr_jax.serving.fields import ENDINGS, Fields


def command_lines(
    names: Sequence[str], fields: Sequence[Fields], model: str, precision: str
) -> str:
    """The `vosr upscale` calls that make the same pictures, one a line.

    Several write into a folder each.

    Args:
      names: of the files.
      fields: as given to `visits.restore`.
      model: its served name.
      precision: of its denoiser.
    """
    if len(fields) == 1:
        return command_line(names, fields[0], model, precision)
    return "\n".join(
        command_line(names, given, model, precision, f"out/{given.preset or 'own'}/")
        for given in fields
    )


def command_line(
    names: Sequence[str], fields: Fields, model: str, precision: str, out: str = "out/"
) -> str:
    """The `vosr upscale` call that makes the same pictures.

    Args:
      names: of the files.
      fields: of all of them.
      model: its served name.
      precision: of its denoiser.
      out: the folder for results.
    """
    endings = {ENDINGS.get(Path(name).suffix.lower().removeprefix("."), "png") for name in names}
    words = ["vosr", "upscale", *names, "-o", out, "-u", f"{fields.scale:g}", "-m", model]
    for flag in ("preset", "strength", "steps", "guidance_scale", "colour_fix"):
        value = getattr(fields, flag)
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    if fields.seed:
        words += ["--seed", str(fields.seed)]
    if fields.tile_size != "auto":
        words += ["--tile-size", fields.tile_size]
    if precision != "float32":
        words += ["--precision", precision]
    if len(endings) == 1 and endings != {"png"}:
        words += ["--format", endings.pop()]
    return shlex.join(words)
