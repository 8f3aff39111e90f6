"""Groups of devices, in every way that XLA writes them."""

import pytest

from vosr_jax.planning.communication import _members


@pytest.mark.parametrize(
    "text, members",
    [
        ("replica_groups={{0,2},{1,3}}, x", (0, 2)),
        ("replica_groups=[2,4]<=[8], x", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", (0, 4)),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'c'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([8]) {'a','b'}", tuple(range(8))),
        ("source_target_pairs={{0,3},{3,0}}", (0, 3)),
    ],
)
def test_the_first_group_is_read(text, members):
    assert _members(text) == members


def test_groups_in_another_notation_are_no_guess():
    with pytest.raises(ValueError, match="cannot be read: replica_groups=<all"):
        _members("replica_groups=<all of them>, x")
