"""Models from the Hugging Face hub: a name or id becomes a local folder.

The protocol, the progress bar and the cache are those of huggingface_hub, an optional package.
This module adds three things. It chooses the files that a model needs. It resumes a killed
download, which the library does only within one process. It puts a file into the cache only when
its checksum is the one that the hub states.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, write_text
from vosr_jax.weights.model_names import (
    AUTOENCODERS,
    ENCODER_FOLDER,
    ENCODERS,
    LIGHT_DECODER,
    HubModel,
)

_CHECKPOINT = re.compile(r"(?:(?:clean_weights|checkpoints)/)?(ema_model|model)[^/]*")
_VERIFIED = ".vosr_verified"
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class _Remote:
    """A file as the hub lists it: sha256 for a large one, git's checksum for a small one."""

    path: str
    checksum: str


def hub_library(otherwise: str) -> Any:
    """Import the optional package huggingface_hub, with its modules that are used here.

    Args:
      otherwise: added to the message if the package is missing.

    Raises:
      UserError: it is missing.
    """
    try:
        # An optional package.
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError as error:
        raise UserError(
            f"the hub needs one more package: pip install 'vosr_jax[hub]'; {otherwise}"
        ) from error
    return huggingface_hub


def fetch(model: HubModel) -> Path:
    """Download and check every file of a model.

    Args:
      model: the model on the hub; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE apply.

    Returns:
      The model's folder in the local cache.

    Raises:
      UserError: huggingface_hub is missing, the hub cannot be reached, there is no such
        repository, folder or file, or a checksum differs.
    """
    library = hub_library(f"or download {model} and give the folder")
    if library.constants.HF_HUB_OFFLINE:
        return _cached(library, model)
    commit, remote = _listing(library, model)
    get = partial(_get, library, model, commit)
    wanted = _wanted(model, remote, lambda path: get(remote[path]))
    places = [get(remote[path]) for path in wanted]
    write_text(_reference(library, model), commit)
    # Go up from the file to the local folder of the repository's top.
    top = places[0].parents[len(PurePosixPath(wanted[0]).parts) - 1]
    return top / model.subfolder


def _store(library: Any, model: HubModel) -> Path:
    """A repository's folder in the cache of huggingface_hub."""
    name = library.file_download.repo_folder_name(repo_id=model.repo, repo_type="model")
    return Path(library.constants.HF_HUB_CACHE) / name


def _reference(library: Any, model: HubModel) -> Path:
    """The cache's file that maps a revision to its commit."""
    return _store(library, model) / "refs" / (model.revision or "main")


def _cached(library: Any, model: HubModel) -> Path:
    """Find a model that was fetched before, without a request to the hub."""
    reference = _reference(library, model)
    commit = reference.read_text().strip() if reference.is_file() else model.revision or "main"
    folder = _store(library, model) / "snapshots" / commit / model.subfolder
    if not folder.is_dir():
        raise UserError(
            f"{model} is not in the local cache and HF_HUB_OFFLINE is set; unset it once to "
            "download the model, or give a folder"
        )
    return folder


def _listing(library: Any, model: HubModel) -> tuple[str, dict[str, _Remote]]:
    """(commit, {path: file}) of a repository."""
    errors = library.errors
    try:
        timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", 10))
        info = library.HfApi().model_info(
            model.repo, revision=model.revision, files_metadata=True, timeout=timeout
        )
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{model}: the repository has no revision {model.revision}") from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"{model}: its page asks to accept terms first; do so and set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{model}: the hub has no repository {model.repo}, or it is private (set HF_TOKEN)"
        ) from error
    except Exception as error:
        raise UserError(_unreachable(model, error)) from error
    files = {}
    for sibling in info.siblings or []:
        large = getattr(sibling, "lfs", None)
        checksum = large.sha256 if large is not None else sibling.blob_id
        files[sibling.rfilename] = _Remote(sibling.rfilename, str(checksum or ""))
    return str(info.sha), files


def _unreachable(model: HubModel, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return (
        f"{model} cannot be fetched from {endpoint} ({reason}); try again, what has arrived is "
        "kept; or download it by other means and give the folder"
    )


def _get(library: Any, model: HubModel, commit: str, file: _Remote) -> Path:
    """Download one file, from where an earlier download stopped, and check it."""
    try:
        if file.checksum:
            _fill_cache(library, model, commit, file)
        place = Path(library.hf_hub_download(model.repo, file.path, revision=commit))
    except UserError:
        raise
    except library.errors.EntryNotFoundError as error:
        raise UserError(
            f"{model}: the hub lists {file.path} but does not give it; try again later, or "
            "download it by other means and give the folder"
        ) from error
    except Exception as error:
        raise UserError(_unreachable(model, error)) from error
    return place


def _fill_cache(library: Any, model: HubModel, commit: str, file: _Remote) -> None:
    """Put a file's content into the cache of huggingface_hub, named by its checksum."""
    store = _store(library, model)
    blob = store / "blobs" / file.checksum
    mark = store / _VERIFIED / file.checksum
    if mark.exists() and blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    mark.parent.mkdir(exist_ok=True)
    partial = blob.with_name(f"{file.checksum}.partial")
    with library.utils.WeakFileLock(mark.with_suffix(".lock")):
        if not blob.exists():
            url = library.hf_hub_url(model.repo, file.path, revision=commit)
            headers = library.utils.build_hf_headers()
            facts = library.get_hf_file_metadata(url, headers=headers)
            if urlsplit(facts.location).netloc != urlsplit(url).netloc:
                headers.pop("authorization", None)  # the storage host must not get the token
            with open(partial, "ab") as target:
                if facts.size is not None and target.tell() > facts.size:
                    target.truncate(0)
                library.file_download.http_get(
                    facts.location,
                    target,
                    resume_size=target.seek(0, os.SEEK_END),
                    headers=headers,
                    expected_size=facts.size,
                    displayed_filename=file.path,
                )
        whole = blob if blob.exists() else partial
        if checksum(whole, len(file.checksum)) != file.checksum:
            whole.unlink()
            raise UserError(
                f"{model}: {file.path} arrived with another checksum than the hub states and was "
                "removed; run the command again to fetch it anew"
            )
        whole.replace(blob)
        mark.touch()


def checksum(path: Path, digits: int) -> str:
    """A file's checksum as the hub states it: sha256 (64 digits) or git's sha1 of a blob (40)."""
    digest = hashlib.sha256()
    if digits == 40:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _wanted(model: HubModel, remote: dict[str, _Remote], get) -> list[str]:
    """List the files of a model: an export's, or a checkpoint's with its frozen networks."""
    inside = f"{model.subfolder}/" if model.subfolder else ""
    own = [path for path in remote if path.startswith(inside)]
    if not own:
        folders = sorted({path.split("/")[0] for path in remote if "/" in path})
        raise UserError(
            f"{model}: the repository has no folder {model.subfolder or '/'}; it has "
            f"{', '.join(folders) or 'none'}"
        )
    names = {path.removeprefix(inside) for path in own}
    if "config.json" in names and {"model.safetensors", "model.safetensors.index.json"} & names:
        return own
    args_path = _args_path(model, remote)
    args = read_json_object(get(args_path))
    weights = _weights(model, names)
    return [args_path, *(inside + name for name in weights), *_parts(model, args, remote)]


def _args_path(model: HubModel, remote: dict[str, _Remote]) -> str:
    folder = PurePosixPath(model.subfolder)
    for candidate in (folder, *folder.parents):
        path = (candidate / "args.json").as_posix()
        if path in remote:
            return path
    raise UserError(
        f"{model} holds neither an export (config.json, model.safetensors) nor args.json of an "
        "official checkpoint"
    )


def _weights(model: HubModel, names: Iterable[str]) -> list[str]:
    """The averaged weights if there are any, else the raw ones."""
    files = sorted(
        n for n in names if n.endswith((".safetensors", ".safetensors.index.json", ".pth"))
    )
    for stem in ("ema_model", "model"):
        found = [n for n in files if (m := _CHECKPOINT.fullmatch(n)) and m[1] == stem]
        if found:
            return found
    if len(files) == 1:
        return files
    raise UserError(f"{model} holds no weights named as the official checkpoints' are")


def _parts(model: HubModel, args: dict[str, Any], remote: dict[str, _Remote]) -> list[str]:
    """Find the files of the frozen networks that args.json names, anywhere in the repository."""
    kind = args.get("ae_type")
    named = [args.get("ae_path") or AUTOENCODERS.get(str(kind), "")]
    if kind == "sd2":
        named.append(LIGHT_DECODER)
    if args.get("enc_type") in ENCODERS:
        named.append(f"{ENCODER_FOLDER}/{ENCODERS[args['enc_type']]}")
    files = []
    for name in named:
        found = _located(str(name), kind, remote)
        if not found:
            raise UserError(
                f"{model} needs {name}, which {model.repo} does not hold; put it beside the "
                "checkpoint in a folder of your own, together with the rest, and give that folder"
            )
        files += found
    return files


def _located(name: str, kind: Any, remote: dict[str, _Remote]) -> list[str]:
    """Find a file or a folder's weights by the last parts of its name, longest match first."""
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        for path in (tail, f"{tail}/vae" if kind == "sd2" else tail):
            if path in remote:
                return [path]
            below = [f for f in remote if f.rpartition("/")[0] == path]
            config = [f for f in below if f.endswith("/config.json")]
            weights = [f for f in below if "diffusion_pytorch_model" in f]
            safe = [f for f in weights if f.endswith((".safetensors", ".json"))]
            exact = [f for f in safe if f.endswith("/diffusion_pytorch_model.safetensors")]
            if config and weights:
                return config + (exact or safe or weights)
    return []
