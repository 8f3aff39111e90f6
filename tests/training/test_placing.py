"""Host arrays to the devices: each part read once, nothing compared, nothing shared."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.parameters.lazy import HostArray
from vosr_jax.training.placing import place
from vosr_jax.training.sharding import make_mesh


def test_every_kind_of_host_array_arrives_as_it_is():
    whole = NamedSharding(make_mesh(1, 1, 1, jax.devices()[:1]), P())
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    reads = [lambda row=row: row for row in value]
    tree = {
        "numpy": value,
        "view": value.T,
        "host": HostArray(value.shape, np.float32, reads, stacked=True),
        "half": HostArray.of(value).astype(jnp.bfloat16),
        "device": [jnp.asarray(value), np.float32(2)],
    }
    placed = place(tree, jax.tree.map(lambda _: whole, tree))
    np.testing.assert_array_equal(placed["view"], value.T)
    assert placed["half"].dtype == jnp.bfloat16 and placed["device"][1] == 2
    for name in ("numpy", "host", "half"):
        np.testing.assert_array_equal(placed[name], value)
        assert placed[name].sharding == whole


def test_writing_over_a_placed_array_leaves_its_source_alone():
    whole = NamedSharding(make_mesh(1, 1, 1, jax.devices()[:1]), P())
    # Large enough for a CPU device to take the memory as it is.
    source = np.ones(1 << 16, np.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    for given in (source, HostArray.of(source)):
        np.testing.assert_array_equal(add(place(given, whole)), 2)
        assert (source == 1).all()


def test_nothing_goes_through_device_put(monkeypatch):
    def never(*_, **__):
        raise AssertionError("device_put compares whole arrays over all processes")

    whole = NamedSharding(make_mesh(1, 1, 1, jax.devices()[:1]), P())
    monkeypatch.setattr(jax, "device_put", never)
    seen = []
    array = HostArray((4,), np.float32, [lambda: (seen.append(1), np.ones(4))[1]])
    np.testing.assert_array_equal(place(array, whole), 1)
    assert seen == [1]
