"""Slices by name, and their devices as the TPU compiler describes them."""

import dataclasses
import fnmatch
import importlib.metadata
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from vosr_jax.chips import CHIPS, Chip
from vosr_jax.errors import UserError

# Shapes of the slices that are commonly named by a number.
_LAUNCH_BARRIER = "--xla_tpu_use_enhanced_launch_barrier"
_NAMED = {
    "v4-8": "v4:2x2x1",
    "v4-16": "v4:2x2x2",
    "v4-32": "v4:2x2x4",
    "v4-64": "v4:2x4x4",
    "v4-128": "v4:4x4x4",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5e-32": "v5e:4x8",
    "v5e-64": "v5e:8x8",
    "v5e-128": "v5e:8x16",
    "v5e-256": "v5e:16x16",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v5p-32": "v5p:2x2x4",
    "v5p-64": "v5p:2x4x4",
    "v5p-128": "v5p:4x4x4",
    "v5p-256": "v5p:4x4x8",
    "v5p-512": "v5p:4x8x8",
    "v5p-1024": "v5p:8x8x8",
    "v5p-2048": "v5p:8x8x16",
    "v5p-4096": "v5p:8x16x16",
    "v5p-8192": "v5p:16x16x16",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
    "v6e-32": "v6e:4x8",
    "v6e-64": "v6e:8x8",
    "v6e-128": "v6e:8x16",
    "v6e-256": "v6e:16x16",
    "tpu7x-8": "tpu7x:2x2x1",
    "tpu7x-16": "tpu7x:2x2x2",
    "tpu7x-32": "tpu7x:2x2x4",
    "tpu7x-64": "tpu7x:2x4x4",
    "tpu7x-128": "tpu7x:4x4x4",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several slices of equal chips.

    Attributes:
      name: as given.
      chip: the type of all chips.
      shape: chips along each dimension of one slice.
      slices: number of slices.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def devices(self) -> int:
        """Devices of all slices, as JAX counts them."""
        return self.chips * self.chip.devices

    def bandwidth(self, coordinates: Sequence[Sequence[int]]) -> float:
        """Bytes per second that a ring collective among these chips moves into one of them.

        Every dimension that they span has its ring, which runs both ways if it closes. It closes
        if they span the whole dimension and its size is a multiple of 4 in a three-dimensional
        torus, or 16 in a flat one.
        """
        directions = 0
        for dimension, size in enumerate(self.shape):
            spanned = len({place[dimension] for place in coordinates})
            if spanned > 1:
                closes = size % 4 == 0 if self.chip.torus == 3 else size == 16
                directions += 2 if closes and spanned == size else 1
        return max(directions, 1) * self.chip.link


def parse_topology(text: str) -> Topology:
    """Parse "v5p:4x4x4", "v5e-256", or "2*v5e:16x16" for two slices.

    Raises:
      UserError: the chip is unknown, or the shape does not suit it.
    """
    number, star, single = text.rpartition("*")
    shape = _NAMED.get(single, single)
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", shape)
    if not found or found[1] not in CHIPS or (star and not number.isdigit()):
        raise UserError(
            f"--topology {text}: give a chip and a shape, as v5p:4x4x4, a name, as v5e-256, or "
            f"several slices, as 2*v5e:16x16; chips: {', '.join(CHIPS)}"
        )
    chip, sizes = CHIPS[found[1]], tuple(int(size) for size in found[2].split("x"))
    if len(sizes) != chip.torus:
        raise UserError(f"--topology {text}: a {chip.name} slice has {chip.torus} dimensions")
    return Topology(text, chip, sizes, int(number) if star else 1)


def other_compiler() -> str:
    """Advice if libtpu is not the version that this jax is made for, else "".

    A newer libtpu describes programs in ways that jax cannot read; compilation then seems to fail.
    """
    asked = [
        found[1]
        for line in importlib.metadata.requires("jax") or ()
        if (found := re.match(r"libtpu==([\w.*]+)", line))
    ]
    try:
        installed = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return ""
    if not asked or fnmatch.fnmatch(installed, asked[0]):
        return ""
    return (
        f"libtpu is {installed}, and jax {jax.__version__} is made for {asked[0]}: "
        "pip install -U 'jax[tpu]'"
    )


def devices_of(topology: Topology) -> list:
    """The topology's devices; programs can be compiled for them but not run.

    Raises:
      UserError: the TPU compiler is not installed, or does not know the shape.
    """
    # No TPU is used, so several plans may be made at once, and JAX need not look for a TPU.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # JAX sets this flag on a machine with TPUs.
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    if _LAUNCH_BARRIER not in flags:
        os.environ["LIBTPU_INIT_ARGS"] = f"{flags} {_LAUNCH_BARRIER}=true".strip()
    shape = "x".join(map(str, topology.shape))
    try:
        described = topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{topology.chip.name}:{shape}",
            # JAX drives its two cores as one device.
            **({"chip_config_name": "megacore"} if topology.chip.name == "v4" else {}),
            **({"num_slices": topology.slices} if topology.slices > 1 else {}),
        )
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the TPU compiler cannot describe {topology.name} ({reason}); "
            "is libtpu installed (pip install 'jax[tpu]')?"
        ) from error
    return list(described.devices)
