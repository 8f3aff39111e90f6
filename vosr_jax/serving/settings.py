"""Settings of the service, chosen when it is started."""

import dataclasses
import math
import re
from pathlib import Path

from vosr_jax.errors import UserError

_TOKEN = re.compile(r"[!-~]+")


@dataclasses.dataclass(frozen=True)
class ServiceSettings:
    """Limits of the service, and its access token.

    Attributes:
      queue: most concurrent requests, whether being read, waiting, running or being answered;
        more get 503.
      batch: most photos of equal settings that are restored together.
      max_megabytes: limit of a request's body.
      max_megapixels: limit of a result, and of all results of one batch together.
      max_seconds: limit from a request's first byte to its result, waiting included.
      token: the token that clients must send, or None.
    """

    queue: int = 32
    batch: int = 8
    max_megabytes: float = 32.0
    max_megapixels: float = 50.0
    max_seconds: float = 300.0
    token: str | None = None

    def __post_init__(self):
        for name in ("queue", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_megabytes", "max_megapixels", "max_seconds"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} must be a number above 0, not {value:g}")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise UserError("the token must be visible ASCII characters without spaces")

    @property
    def max_bytes(self) -> int:
        """Limit of a request's body, bytes."""
        return int(self.max_megabytes * 1e6)


def served_names(models: list[str]) -> dict[str, str]:
    """Map each model's name for clients to the model: {name: name or path}.

    A folder is named by its last part, so clients never see a path of this machine.

    Raises:
      UserError: two models have the same name.
    """
    names: dict[str, str] = {}
    for model in models:
        path = Path(model).expanduser()
        name = path.resolve().name if path.exists() or "://" in model else model
        if name in names:
            raise UserError(f"two models are called {name}; rename one of the folders")
        names[name] = model
    return names
