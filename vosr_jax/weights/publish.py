"""Publishing an export with its model card on the Hugging Face hub.

The card says what the model is, where it comes from and what it may be used for. The upload is one
commit.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vosr_jax.config import Config, validate
from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, whole_file, write_text
from vosr_jax.weights.export import is_export
from vosr_jax.weights.hub import hub_library
from vosr_jax.weights.licences import NOT_STATED, of_folder

CARD, PICTURE = "README.md", "before-after.png"
_LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "openrail++", "other")
LIMITS = (
    "It invents what it cannot see: do not read faces, plates, text or evidence from its results.",
    "It was made for photographs; drawings, screens and scans are not what it has seen.",
)
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(
    folder: str | Path,
    title: str,
    *,
    address: str | None = None,
    licence: str | None = None,
    data: str | None = None,
    results: Mapping[str, Any] | None = None,
    picture: Callable[[], Image.Image] | None = None,
) -> Path:
    """Write an export's README.md; it shows `before-after.png` if the folder has one.

    Nothing is written unless every part of it can be made.

    Args:
      folder: an export.
      title: the model's title.
      address: owner/name on the hub, or a path, for the commands; None: the title.
      licence: the denoiser's licence, for the hub's metadata; required for one trained here.
      data: the training data and its licences; None: not stated.
      results: content of the results.json that eval.py wrote.
      picture: makes before-after.png anew; called last, when everything else is valid.

    Returns:
      The card's path.

    Raises:
      UserError: the folder is not an export, nothing states the denoiser's licence, or
        huggingface_hub is missing.
    """
    folder, address = Path(folder), address or title
    if not is_export(folder):
        raise UserError(
            f"{folder} is no export; make one with `vosr convert {folder} -o EXPORT` and give that"
        )
    stated = of_folder(folder)
    if licence is not None and licence.lower() not in _LICENCES:
        raise UserError(f"--licence {licence} is unknown; choose {', '.join(_LICENCES)}")
    if licence is None and stated["denoiser"] == NOT_STATED:
        raise UserError(
            f"{folder} was trained here, so nobody but you can say its licence; give --licence, "
            f"one of {', '.join(_LICENCES)}"
        )
    if licence is not None:
        stated["denoiser"] = licence.lower()
    config = validate(read_json_object(folder / "config.json"))
    provenance = folder / "provenance.json"
    facts = read_json_object(provenance) if provenance.is_file() else {}
    parts = [
        _metadata(licence, stated),
        f"# {title}\n",
        _about(config, facts),
        _picture(picture is not None or (folder / PICTURE).is_file()),
        _use(address),
        _training(facts, data),
        _figures(results, address),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS) + "\n",
        _table("## Licences\n", ("part", "licence, and who states it"), stated.items()),
    ]
    if picture is not None:
        shown = picture()
        with whole_file(folder / PICTURE) as part:
            shown.save(part, "PNG")
    write_text(folder / CARD, "\n".join(part for part in parts if part))
    return folder / CARD


def _metadata(licence: str | None, stated: Mapping[str, str]) -> str:
    denoiser = stated["denoiser"].lower()
    known = licence or next((one for one in _LICENCES if denoiser.startswith(one)), "other")
    hub = hub_library("nothing was written")
    metadata = hub.ModelCardData(
        library_name="vosr_jax",
        license=known.lower(),
        pipeline_tag="image-to-image",
        tags=["super-resolution", "image-restoration", "jax", "flax"],
    )
    return f"---\n{metadata.to_yaml()}\n---\n"


def _about(config: Config, facts: Mapping[str, Any]) -> str:
    count = facts.get("parameters")
    size = f" of {int(count):,} parameters" if isinstance(count, int) else ""
    steps = config.sampling.steps
    calls = "one network evaluation" if steps == 1 else f"{steps} steps"
    return (
        f"A VOSR denoiser{size} that restores and enlarges photographs in {calls} "
        "([arXiv 2604.03225](https://arxiv.org/abs/2604.03225)). Latents: "
        f"{config.autoencoder.kind}; visual tokens: {config.encoder.kind}; width "
        f"{config.model.width}, depth {config.model.depth}.\n"
    )


def _picture(shown: bool) -> str:
    return f"![Input, bicubic and restored]({PICTURE})\n" if shown else ""


def _use(address: str) -> str:
    return (
        "## Use\n\n```\npip install 'vosr_jax[hub]'\n"
        f"vosr upscale photo.jpg -o out/ -m {address}\n```\n\n```python\n"
        "from vosr_jax import Upscaler\n\n"
        f'picture = Upscaler.from_pretrained("{address}")("photo.jpg", scale=4)\n```\n'
    )


def _training(facts: Mapping[str, Any], data: str | None) -> str:
    head = f"## Training\n\nTrained on: {data or 'not stated'}.\n"
    shown = {k: v for k, v in facts.items() if k not in ("dtype", "parameters")}
    if not shown:
        return head
    rows = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in shown.items()]
    return _table(head, ("what", "value"), rows)


def _figures(results: Mapping[str, Any] | None, address: str) -> str:
    command = f"python eval.py --config CONFIG --workdir DIR --config.eval.model={address}"
    if results is None:
        return f"## Figures\n\nNot measured; `{command}` measures them.\n"
    try:
        titles = {key: measure["title"] for key, measure in results["measures"].items()}
        lines = [f"| run | {' | '.join(titles.values())} |", "|---" * (len(titles) + 1) + "|"]
        for run in results["runs"]:
            means = run["means"]
            values = (f"{means[key]['mean']:.4g}" if key in means else "" for key in titles)
            lines.append(f"| {run['name']} | {' | '.join(values)} |")
        about = results["about"]
        lines.append(f"\n`{command}`, {results['date']}, {about['device']}.")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the results are none of eval.py's results.json ({error!r})") from error
    return "## Figures\n\n" + "\n".join(lines) + "\n"


def _table(title: str, head: tuple[str, str], rows) -> str:
    lines = [title, f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += [f"| {key} | {str(value).replace('|', '/')} |" for key, value in rows]
    return "\n".join(lines) + "\n"


def require_publishable(repo: str) -> Any:
    """Check all that needs no connection and return the package huggingface_hub.

    Raises:
      UserError: the name is not a repository's, or the package is missing.
    """
    if _REPO.fullmatch(repo) is None:
        raise UserError(f"{repo} is no repository of the hub; write owner/name")
    return hub_library("nothing was published")


def push(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload an export; the repository is created if there is none.

    All files go into one commit, so a refused or interrupted upload publishes nothing.

    Args:
      folder: an export with its card.
      repo: owner/name.
      private: whether a repository created here is private.

    Returns:
      The commit's address.

    Raises:
      UserError: huggingface_hub is missing, nobody is logged in, or the hub refuses or disconnects.
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
    # The network and the upload's threads raise errors of many kinds.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the upload to {repo} broke off ({reason}); nothing was published, give the same "
            "command again"
        ) from error
    return str(done.commit_url)
