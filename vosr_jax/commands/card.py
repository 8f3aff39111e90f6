"""`vosr card`: write the model card of an export."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    card = commands.add_parser(
        "card",
        help="write an export's model card",
        description="Write README.md into an export: what the model is, how to use it, what it "
        "was trained on, its figures, limits and licences.",
    )
    add_options(card, "the export's name")
    card.set_defaults(run=run)


def add_options(parser, name: str) -> None:
    """Add the options that `vosr push` shares."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="an export (see vosr convert)")
    add("--name", help=f"what the model is called; default: {name}")
    add("--licence", help="of the denoiser; needed for one that was trained here")
    add("--data", metavar="TEXT", help="what it was trained on and under which licences")
    add("--results", metavar="FILE", help="results.json of eval.py, for the table of figures")
    add("--photo", metavar="FILE", help="shown before and after, restored by the model")


def run(options: argparse.Namespace) -> int:
    """Write the card."""
    name = Path(options.folder).resolve().name
    print(f"wrote {make(options, options.name or name, name)}")
    return 0


def make(options: argparse.Namespace, title: str, address: str) -> Path:
    """Write the card and the image that it shows.

    Args:
      options: options from `add_options`.
      title: the model's title.
      address: the model's address in the card's commands.

    Raises:
      UserError: the folder is not an export, or a file for the card cannot be used.
    """
    # Loads JAX.
    from vosr_jax.weights.publish import write_card

    folder = Path(options.folder)
    results = None if options.results is None else read_json_object(Path(options.results))
    picture = None
    if options.photo is not None:
        picture = partial(_before_and_after, folder, Path(options.photo))
    return write_card(
        folder,
        title,
        address=address,
        licence=options.licence,
        data=options.data,
        results=results,
        picture=picture,
    )


def _before_and_after(folder: Path, photo: Path) -> Any:
    """Make the card's image; `write_card` calls this when everything else is valid."""
    # Not needed by a card without an image.
    from vosr_jax.restoration.comparison import before_and_after

    if not photo.is_file():
        raise UserError(f"--photo {photo} does not exist; name a photo")
    return before_and_after(folder, photo)
