"""Resolution of a model's name or path, for upscaling, training, evaluation and conversion."""

import dataclasses
import difflib
from pathlib import Path
from typing import Any, Literal, cast

from vosr_jax.errors import UserError
from vosr_jax.files import is_remote, listing, to_path
from vosr_jax.files.cached import local_folder
from vosr_jax.weights import hub
from vosr_jax.weights.export import is_export
from vosr_jax.weights.model_names import RELEASE_REPO, RELEASED, SHIPPED, hub_model
from vosr_jax.weights.official_reader import find_args

_SHIPPED_FOLDER = Path(__file__).parents[1] / "pretrained"
_STORES = ("gs://", "s3://")
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".pth")


@dataclasses.dataclass(frozen=True)
class Found:
    """A model that exists.

    Attributes:
      kind: "export", our format; "workdir", of train.py; "release", the official layout.
      path: the model's folder; for a release also a weights file inside one.
    """

    kind: Literal["export", "workdir", "release"]
    path: Path


def resolve(name_or_path: Any, key: str | None = None) -> Found:
    """Find a model.

    Args:
      name_or_path: a shipped model ("nano", "nano-onestep"); a path or a bucket's address of an
        export, of a workdir of train.py, or of a folder or file in the official layout; a released
        model ("2.0", "0.5b", "0.5b-onestep", "1.4b", "1.4b-onestep"); or
        owner/repo:subfolder@revision of the hub, which is fetched. A path that exists takes
        precedence over a hub id of that name. In a bucket a workdir is read in place; any other
        model is copied into the cache folder.
      key: the setting that has this value, for messages: "teacher", "train.init_from".

    Raises:
      UserError: there is no such model; the message lists the known ones.
    """
    called = f"{key}={name_or_path}" if key else f"model {name_or_path}"
    return _classified(locate(name_or_path, called), called)


def lasting_name(name_or_path: Any) -> str:
    """Return a name that is valid from every folder: a local path is made absolute.

    Args:
      name_or_path: as `resolve` takes it.
    """
    name = str(name_or_path)
    if name in SHIPPED or "://" in name:
        return name
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def locate(name_or_path: Any, called: str) -> Path:
    """Find a model's path, fetching it if necessary; see `resolve`.

    Args:
      name_or_path: as `resolve` takes it.
      called: the model's name in messages.
    """
    name = str(name_or_path)
    if name in SHIPPED:
        folder = _SHIPPED_FOLDER / name
        if not folder.is_dir():
            raise UserError(f"{called} is not in this installation: {folder} is missing")
        return folder
    if "://" in name:
        return _in_a_store(name, called)
    path = Path(name).expanduser()
    if path.exists():
        return path
    on_hub = hub_model(name)
    if on_hub is None:
        raise UserError(_unknown(name, called))
    try:
        return hub.fetch(on_hub)
    except UserError as error:
        if on_hub.repo == RELEASE_REPO or on_hub.subfolder or on_hub.revision:
            raise
        # The name may be a hub id, but just as well a mistyped path.
        raise UserError(
            f"{called}: there is no such path here, and taken for a repository of the hub: {error}"
        ) from error


def _in_a_store(name: str, called: str) -> Path:
    """A workdir's address as an epath.Path; for any other model the folder of a local copy."""
    if not name.startswith(_STORES):
        raise UserError(
            f"{called} is no address of a model; give a folder, {'… or '.join(_STORES)}…, or "
            "owner/repo:subfolder@revision of the hub"
        )
    names = {entry.name for entry in listing(name)}
    if not names:
        raise UserError(f"{called}: there is nothing at this address")
    if {"config.json", "checkpoints"} <= names:
        return cast(Path, to_path(name))
    return local_folder(name)


def _near(name: str) -> list[str]:
    known = {known.lower(): known for known in (*SHIPPED, *RELEASED)}
    return [known[n] for n in difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)]


def _unknown(name: str, called: str) -> str:
    near = _near(name) if "/" not in name else []
    names = ", ".join((*SHIPPED, *RELEASED))
    hint = f"did you mean {near[0]}? Known" if near else "known"
    return (
        f"{called}: there is no such name or path; {hint} are {names}, "
        "and else an export, a workdir of train.py, an official folder or "
        "owner/repo:subfolder@revision of the hub"
    )


def _classified(path: Path, called: str) -> Found:
    if is_remote(path):
        return Found("workdir", path)
    if is_export(path):
        return Found("export", path)
    if path.name.endswith(_WEIGHTS) and path.name.startswith("model") and is_export(path.parent):
        return Found("export", path.parent)
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        return Found("workdir", path)
    if find_args(path) is not None:
        return Found("release", path)
    told = called if str(path) in called else f"{called} ({path})"
    if (path / "config.json").is_file():
        raise UserError(
            f"{told} is no model yet: beside its config.json lies neither model.safetensors nor "
            "checkpoints/; train it further, or name another model"
        )
    raise UserError(
        f"{told} is no model: it has neither config.json with model.safetensors or checkpoints/ "
        "nor, in it or up to five folders above, the official args.json"
    )
