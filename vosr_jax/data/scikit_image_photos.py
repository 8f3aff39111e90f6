"""The photos inside the package scikit-image: data without a download."""

import importlib.util
from pathlib import Path

from vosr_jax.errors import UserError

# Split by photo; the two views of the motorcycle show one scene and stay together.
HELD_OUT = ("chelsea.png", "coffee.png", "rocket.jpg")
TRAINING = (
    "astronaut.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
)


def scikit_image_photographs(names: tuple[str, ...] = TRAINING) -> list[Path]:
    """List the files of scikit-image's photos.

    Args:
      names: TRAINING (the default), HELD_OUT, or a part of either.

    Returns:
      Paths in the order of names.

    Raises:
      UserError: scikit-image is not installed, or this version ships other photos.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "data.sources is unset, which means scikit-image's photographs, but scikit-image is "
            "not installed: pip install scikit-image, or set data.sources to a folder of pictures"
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"this scikit-image has no {missing[0]} in {folder}: set data.sources to a folder of "
            "pictures, or install scikit-image 0.26"
        )
    return [folder / name for name in names]
