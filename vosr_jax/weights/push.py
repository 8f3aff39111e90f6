"""An export with its card to the Hugging Face hub, in one commit."""

import os
import re
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.weights.card import CARD
from vosr_jax.weights.export import is_export
from vosr_jax.weights.hub import hub_library

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def require_publishable(repo: str) -> Any:
    """Huggingface_hub, once all is known to be right that needs no connection.

    Raises:
      UserError: the name is none of a repository, or the package is missing.
    """
    if _REPO.fullmatch(repo) is None:
        raise UserError(f"{repo} is no repository of the hub; write owner/name")
    return hub_library("nothing was published")


def push(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload an export; the repository is made where there is none.

    All files go into one commit, so that a hub that refuses or breaks off publishes nothing.

    Args:
      folder: an export with its card.
      repo: owner/name.
      private: of a repository that is made here.

    Returns:
      The commit's address.

    Raises:
      UserError: huggingface_hub is missing, nobody is logged in, or the hub refuses or breaks off.
    """
    folder, library = Path(folder), require_publishable(repo)
    if not is_export(folder) or not (folder / CARD).is_file():
        raise UserError(f"{folder} is no export with a card; make one with `vosr card {folder}`")
    api = library.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="vosr_jax")
    try:
        api.create_repo(repo, exist_ok=True, private=private)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=f"Upload {folder.name} with vosr_jax"
        )
    except library.errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise UserError(
                f"the hub does not let you write to {repo} (HTTP {status}); log in with "
                "`hf auth login` or set HF_TOKEN to a token that may write; nothing was published"
            ) from error
        raise UserError(
            f"the hub refused {repo} (HTTP {status}); nothing was published, try again"
        ) from error
    # What the network and the upload's threads raise is of many kinds.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the upload to {repo} broke off ({reason}); nothing was published, give the same "
            "command again"
        ) from error
    return str(done.commit_url)
