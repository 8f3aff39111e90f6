"""Guard against a fork after JAX was used: its threads are gone, so its calls would hang."""

import os

from vosr_jax.errors import UserError

_state = {"used": False, "forked_after_use": False}


def _in_child() -> None:
    _state["forked_after_use"] = _state["used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def check() -> None:
    """Record that this process uses JAX.

    Raises:
      UserError: this process was forked from one that had used JAX.
    """
    if _state["forked_after_use"]:
        raise UserError(
            "this process was forked from one that had used the upscaler, and JAX does not work "
            "after a fork; use multiprocessing.get_context('spawn') and load the model there"
        )
    _state["used"] = True
