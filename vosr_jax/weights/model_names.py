"""Names of models and of their files: shipped ones, the official release's, ids of the hub."""

import dataclasses
import re
from pathlib import PurePosixPath

from vosr_jax.errors import UserError

SHIPPED = ("nano", "nano-onestep")

# The repository that the official README names, and its folders.
RELEASE_REPO = "CSWRY/VOSR"
RELEASED = {
    "2.0": "VOSR2",
    "vosr2": "VOSR2",
    "0.5b": "VOSR_0.5B_ms",
    "0.5b-onestep": "VOSR_0.5B_os",
    "1.4b": "VOSR_1.4B_ms",
    "1.4b-onestep": "VOSR_1.4B_os",
}

# The frozen networks' files, as the official code names them.
AUTOENCODERS = {
    "sd2": "preset/ckpts/stable-diffusion-2-1-base",
    "qwen": "preset/ckpts/Qwen-Image-vae-2d",
}
LIGHT_DECODER = "preset/ckpts/sd21_lwdecoder.pth"
ENCODERS = {
    "dinov2b": "dinov2_vitb14_pretrain.pth",
    "dinov2l": "dinov2_vitl14_pretrain.pth",
    "dinov2g": "dinov2_vitg14_pretrain.pth",
}
ENCODER_FOLDER = "preset/ckpts/torch_cache/checkpoints"

_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::([^@]+))?(?:@(.+))?")


@dataclasses.dataclass(frozen=True)
class HubModel:
    """A model on the hub.

    Attributes:
      repo: owner/name.
      subfolder: folder in the repository, or "" for its top.
      revision: branch, tag or commit; None for the newest.
    """

    repo: str
    subfolder: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        folder = f":{self.subfolder}" if self.subfolder else ""
        return f"{self.repo}{folder}" + (f"@{self.revision}" if self.revision else "")


def hub_model(name: str) -> HubModel | None:
    """Parse a released model's name or owner/repo:subfolder@revision; None for anything else.

    Raises:
      UserError: a subfolder that leads out of the repository.
    """
    plain, _, revision = name.partition("@")
    if plain in RELEASED:
        return HubModel(RELEASE_REPO, RELEASED[plain], revision or None)
    match = _ID.fullmatch(name)
    if match is None or name.startswith((".", "/")):
        return None
    subfolder = (match[2] or "").strip("/")
    if ".." in PurePosixPath(subfolder).parts:
        raise UserError(f"{name}: a subfolder must lie inside the repository")
    return HubModel(match[1], subfolder, match[3])
