"""Every row lies where its sample is loaded, on slices as the compiler describes them."""

import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from vosr_jax.errors import UserError
from vosr_jax.planning.topology import devices_of, parse_topology
from vosr_jax.training.placing import process_rows, put_batch, put_notes
from vosr_jax.training.sharding import make_mesh

TABLE = Path(__file__).parents[2] / "docs" / "scaling.md"


def documented() -> list[tuple[str, tuple[int, int, int], int]]:
    """(slice, mesh, rows of an update) of every line of the table in docs/scaling.md."""
    line = r"^\| [\d.]+B [^,]+, (\S+) \| \d+ \| (\d+) x (\d+) x (\d+) \| \d+, (\d+) \|"
    found = re.findall(line, TABLE.read_text(), re.MULTILINE)
    return sorted({(name, (int(d), int(f), int(t)), int(rows)) for name, d, f, t, rows in found})


# Those on which a rule by position failed, and some with tensor parallelism, inside and over hosts.
OTHERS = [
    ("v5e:16x16", (32, 8, 1), 1024),
    ("v5e:16x16", (64, 4, 1), 512),
    ("v6e:16x16", (64, 4, 1), 2048),
    ("v5p:4x4x4", (16, 4, 1), 512),
    ("v5p:4x4x4", (8, 8, 1), 512),
    ("v5e:4x4", (2, 8, 1), 64),
    ("v5e:4x4", (1, 2, 8), 6),
    ("v5e:4x4", (2, 4, 2), 24),
    ("v5p:16x16x16", (1024, 4, 1), 8192),
    ("2*v5p:4x4x4", (32, 4, 1), 384),
    ("2*v5e:16x16", (64, 4, 2), 256),
    ("4*v5e:4x4", (8, 8, 1), 64),
]


@functools.cache
def slice_of(name: str) -> list:
    pytest.importorskip("libtpu")
    return devices_of(parse_topology(name))


def test_the_table_is_read_whole():
    cases = documented()
    assert len(cases) >= 20
    assert {"v5p:16x16x16", "2*v5e:16x16"} <= {name for name, _, _ in cases}


@pytest.mark.parametrize(
    ("name", "axes", "size"), [*documented(), *OTHERS], ids=lambda x: str(x).replace(" ", "")
)
def test_each_process_has_the_rows_of_its_devices_and_all_have_all(name, axes, size):
    mesh = make_mesh(*axes, slice_of(name))
    # Of the mesh alone: the device at (d, f, *) has the part number d * fsdp + f.
    data, fsdp, tensor = axes
    part = size // (data * fsdp)
    wanted: dict[int, set[int]] = {}
    for d, f, t in np.ndindex(data, fsdp, tensor):
        first = (d * fsdp + f) * part
        owner = mesh.devices[d, f, t].process_index
        wanted.setdefault(owner, set()).update(range(first, first + part))
    covered = np.zeros(size, int)
    for process, rows in wanted.items():
        found = process_rows(mesh, size, process)
        assert found.dtype == np.int64
        assert found.tolist() == sorted(rows), f"process {process}"
        covered[found] += 1
    assert (covered >= 1).all()
    hosts = len(wanted)
    if tensor == 1:
        assert (covered == 1).all() and sum(map(len, wanted.values())) == size
    assert hosts == len({device.process_index for device in slice_of(name)})


def test_on_a_real_slice_the_rows_are_no_block():
    mesh = make_mesh(16, 4, 1, slice_of("v5p:4x4x4"))
    rows = process_rows(mesh, 64, 0)
    assert len(rows) == 4 and (np.diff(rows) > 1).any()


def test_rows_under_tensor_parallelism_over_hosts_are_loaded_by_each():
    mesh = make_mesh(1, 2, 8, slice_of("v5e:4x4"))
    loaded = [process_rows(mesh, 6, process).tolist() for process in range(4)]
    assert sorted(loaded) == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]


def test_a_process_without_devices_has_no_rows_and_uneven_rows_are_refused():
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    assert process_rows(mesh, 4, 7).tolist() == []
    assert process_rows(mesh, 4, 0).tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="a batch of 63 rows does not lie evenly over .* = 64"):
        process_rows(make_mesh(16, 4, 1, slice_of("v5p:4x4x4")), 63, 0)


def test_one_process_puts_its_rows_and_its_notes():
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    batch = {"hr": np.arange(24, dtype=np.uint8).reshape(4, 2, 3), "index": np.arange(4)}
    placed = put_batch(batch, mesh)
    for name, value in batch.items():
        np.testing.assert_array_equal(placed[name], value)
    notes = put_notes(np.array([3, 0, 5], np.int32), mesh)
    assert notes.shape == (1, 3) and np.asarray(notes).sum(0).tolist() == [3, 0, 5]
