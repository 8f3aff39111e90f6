"""A damaged checkpoint leaves the others' way, and stays where a person can look at it."""

import os

from etils import epath

from vosr_jax.files.checksums import names_below
from vosr_jax.files.paths import filesystem, is_remote
from vosr_jax.weights.checkpoint_files import COMMITTED


def set_aside(checkpoint: epath.Path) -> str:
    """Rename `<step>` to `<step>.damaged`; the new name.

    A bucket has no rename: the file that makes it a checkpoint goes first, then the store copies
    the rest within itself. Cut off in between, what is left counts as an unfinished save.
    """
    target, count = checkpoint.with_name(f"{checkpoint.name}.damaged"), 1
    while target.exists():
        count += 1
        target = checkpoint.with_name(f"{checkpoint.name}-{count}.damaged")
    if not is_remote(checkpoint):
        os.rename(checkpoint, target)
        return target.name
    (checkpoint / COMMITTED).unlink(missing_ok=True)
    store = filesystem(checkpoint)
    for name in names_below(checkpoint):
        store.cp_file(str(checkpoint / name), str(target / name))
    checkpoint.rmtree(missing_ok=True)
    return target.name
