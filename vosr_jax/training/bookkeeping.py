"""What is written beside the weights never ends a training: a failure costs a line, no more."""

from collections.abc import Callable

from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files.paths import reason_of

_failing: set[str] = set()


def attempt(what: str, write: Callable[[], object]) -> bool:
    """Write something; where that fails it is said, once until it succeeds again.

    Args:
      what: is written, for the message.
      write: does it.

    Returns:
      Whether it was written.
    """
    try:
        write()
    except (OSError, UserError) as error:
        if what not in _failing:
            _failing.add(what)
            reason = str(error) if isinstance(error, UserError) else reason_of(error)
            say(f"{what} could not be written ({reason}); training goes on")
        return False
    _failing.discard(what)
    return True
