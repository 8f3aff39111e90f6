"""JAX's threads do not live on in a forked process: there its calls would wait for ever."""

import os

from vosr_jax.errors import UserError

_state = {"used": False, "forked_after_use": False}


def _in_child() -> None:
    _state["forked_after_use"] = _state["used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def check() -> None:
    """Note that JAX is used here.

    Raises:
      UserError: this process was forked from one that had used it.
    """
    if _state["forked_after_use"]:
        raise UserError(
            "this process was forked from one that had used the upscaler, and JAX does not work "
            "after a fork; use multiprocessing.get_context('spawn') and load the model there"
        )
    _state["used"] = True
