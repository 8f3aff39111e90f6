"""Writes that must not end a run: a failure costs one line in the log."""

from collections.abc import Callable

from vosr_jax.files.paths import reason_of


class Attempts:
    """Runs writers and reports a failing one once until it succeeds again.

    Args:
      tell: called with the line of a failure.
    """

    def __init__(self, tell: Callable[[str], object]):
        self._tell = tell
        self._failing: set[str] = set()

    def __call__(self, what: str, write: Callable[[], object]) -> bool:
        """Run a writer; returns whether it succeeded.

        Args:
          what: name of the output, for the message.
          write: writes it.
        """
        try:
            write()
        # The libraries that write raise errors of many kinds.
        except Exception as error:
            if what not in self._failing:
                self._failing.add(what)
                reason = reason_of(error.__cause__ or error)
                self._tell(f"{what} cannot be written ({reason}); training goes on without it")
            return False
        self._failing.discard(what)
        return True
