"""What one of several processes has found becomes what all of them do, with the same sentence."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from vosr_jax.errors import UserError

_BYTES = 600
_T = TypeVar("_T")


def worst_of_all(rank: int, sentence: str = "") -> tuple[int, str]:
    """The highest rank that any process gives, and that process's sentence; all wait for all.

    Args:
      rank: 0 to 255, how bad it is here.
      sentence: why, cut after 600 bytes.
    """
    if jax.process_count() == 1:
        return rank, sentence
    from jax.experimental import multihost_utils

    own = np.zeros(_BYTES + 1, np.uint8)
    text = sentence.encode()[:_BYTES]
    own[0], own[1 : 1 + len(text)] = rank, np.frombuffer(text, np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(own))
    worst = everyone[everyone[:, 0].argmax()]
    return int(worst[0]), worst[1:].tobytes().rstrip(b"\0").decode(errors="ignore")


def refused_together(action: Callable[[], _T]) -> _T:
    """What the action gives; where it is refused on one process, all raise that sentence.

    Raises:
      UserError: the action was refused on some process.
    """
    failure: UserError | None = None
    result = None
    try:
        result = action()
    except UserError as error:
        failure = error
    refused, sentence = worst_of_all(int(failure is not None), str(failure or ""))
    if failure is not None:
        raise failure
    if refused:
        raise UserError(sentence)
    return result  # type: ignore[return-value]
