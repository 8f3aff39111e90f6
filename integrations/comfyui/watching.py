"""ComfyUI's progress bar, its previews, and its button to cancel."""

import numpy as np
from PIL import Image

_TICKS = 1000
_LONGEST_PREVIEW = 512


class Watch:
    """Tells ComfyUI how far a batch is, and breaks it off once the user has cancelled.

    Args:
      count: pictures in the batch.
    """

    def __init__(self, count: int):
        from comfy import model_management
        from comfy.utils import ProgressBar

        self._count, self._done = count, 0
        self._management, self._bar = model_management, ProgressBar(_TICKS)
        self._preview: tuple[str, Image.Image, int] | None = None
        # What torch keeps without using it goes back to the device, for JAX.
        model_management.soft_empty_cache()

    def finished(self, pictures: int) -> None:
        """So many more pictures are done."""
        self._done += pictures

    def progress(self, share: float, pictures: int) -> None:
        """A share, 0 to 1, of so many pictures at work is done.

        Raises:
          comfy.model_management.InterruptProcessingException: the user has cancelled.
        """
        self._management.throw_exception_if_processing_interrupted()
        ticks = round((self._done + share * pictures) / self._count * _TICKS)
        self._bar.update_absolute(ticks, _TICKS, self._preview)
        self._preview = None

    def preview(self, index: int, picture: np.ndarray) -> None:
        """How a picture at work stands, uint8 [H, W, 3]; the bar shows it when it moves."""
        image = Image.fromarray(picture)
        image.thumbnail((_LONGEST_PREVIEW, _LONGEST_PREVIEW))
        self._preview = "JPEG", image, _LONGEST_PREVIEW
