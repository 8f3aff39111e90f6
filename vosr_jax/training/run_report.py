"""Report of a run's start: devices, parameters and sources, one line each."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jax
from jax.sharding import Mesh

from vosr_jax.console import say
from vosr_jax.data.sizes import megapixels
from vosr_jax.data.sources.source import Source
from vosr_jax.errors import UserError
from vosr_jax.files import write_text
from vosr_jax.models.lora import share_of, trained_of
from vosr_jax.training.setup import Run
from vosr_jax.training.sharding import describe

PARAMETERS = "parameters.txt"


def report_start(run: Run, folder: Path, sources: Iterable[Source]) -> None:
    """Print what this run works with, on process 0; list every parameter in a file.

    Args:
      run: begun or resumed.
      folder: of the run; gets parameters.txt.
      sources: opened.
    """
    if jax.process_index():
        return
    say(about_devices(run.mesh))
    shapes = run.train_step.network.shapes
    table, last = describe(trained_of(shapes), run.mesh).rsplit("\n", 1)
    if run.base is not None:
        last += f", of adapters: {share_of(shapes):.2%} of the network"
    where = ""
    try:
        write_text(folder / PARAMETERS, f"{table}\n{last}\n")
        where = f"; each in {PARAMETERS}"
    except UserError as error:
        where = f"; {error}"
    say(f"{last}{where}")
    for source in sources:
        say(about_source(source))


def about_devices(mesh: Mesh) -> str:
    """Describe the devices by number and kind, their processes and their mesh."""
    devices = list(mesh.devices.flat)
    kinds = Counter(device.device_kind for device in devices)
    named = " and ".join(f"{count} x {kind}" for kind, count in kinds.items())
    processes = len({device.process_index for device in devices})
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    of = f" of {processes} processes" if processes > 1 else ""
    return f"devices: {named}{of}; mesh {axes}"


def about_source(source: Source) -> str:
    """Describe a source and the size of its images."""
    size = megapixels(source)
    told = "none that were looked at can be read"
    if size is not None:
        told = f"about {size[0]:.2g} megapixels each ({size[1]} looked at)"
    return f"source {source.about()}, {told}"
