"""The vosr command with the tests' small model instead of one from disk: a program for tests."""

import sys
import time

from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.restoration.upscaler import Upscaler


class Slow(Upscaler):
    """Takes a moment for every picture, so that a test can kill it in between."""

    def __call__(self, *arguments, **settings):
        time.sleep(0.3)
        return super().__call__(*arguments, **settings)


if __name__ == "__main__":
    kind = Slow if sys.argv[1] == "slow" else Upscaler
    Upscaler.from_pretrained = classmethod(lambda cls, *_, **__: kind(tiny_model()))  # type: ignore
    sys.exit(cli.main(sys.argv[2:]))
