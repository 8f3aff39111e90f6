"""`vosr card`: write the model card of an export."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vosr_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_LONGEST = 160


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
    from vosr_jax.files.json_file import read_json_object
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


def _before_and_after(folder: Path, photo: Path) -> "Image.Image":
    """Show a photo of at most 160 px per side, its bicubic enlargement and the model's result."""
    # Import JAX only here: a card without an image does not need it.
    from PIL import Image

    from vosr_jax.files.photo_reading import read_photo
    from vosr_jax.restoration.comparison import local_colour_shift, side_by_side
    from vosr_jax.restoration.inputs import as_photo
    from vosr_jax.restoration.upscaler import Upscaler

    if not photo.is_file():
        raise UserError(f"--photo {photo} does not exist; name a photo")
    small = read_photo(photo).rgb
    small.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
    source = as_photo(small)
    result = Upscaler.from_pretrained(folder)(source, scale=4, output="photo")
    return side_by_side(source, result, local_colour_shift(source, result)).rgb
