"""What is written beside the weights never ends a run: a failure costs a line, no more."""

from collections.abc import Callable

from vosr_jax.files.paths import reason_of


class Attempts:
    """Writes things; what fails is said once until it succeeds again.

    Args:
      tell: takes the line.
    """

    def __init__(self, tell: Callable[[str], object]):
        self._tell = tell
        self._failing: set[str] = set()

    def __call__(self, what: str, write: Callable[[], object]) -> bool:
        """Write something; whether it was written.

        Args:
          what: is written, for the message.
          write: does it.
        """
        try:
            write()
        # Libraries that write raise errors of many kinds.
        except Exception as error:
            if what not in self._failing:
                self._failing.add(what)
                reason = reason_of(error)
                self._tell(f"{what} cannot be written ({reason}); training goes on without it")
            return False
        self._failing.discard(what)
        return True
