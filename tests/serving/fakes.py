"""An upscaler that enlarges at once, or when it is let."""

import dataclasses
import io
import threading
import time
from types import SimpleNamespace

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.restoration.inputs import enlarged
from vosr_jax.serving.fields import Fields


class FakeUpscaler:
    """Enlarges without a network.

    Attributes:
      gate: is waited for in every call.
      calls: pictures of every call.
      begun: set once a call waits.
      broken_off: calls that `progress` ended.
      watched: calls with a preview.
      fails: raised in a call with a picture of one pixel.
    """

    def __init__(self, open_: bool = True):
        self.gate, self.begun = threading.Event(), threading.Event()
        self.calls: list[int] = []
        self.broken_off = 0
        self.watched = 0
        self.fails: Exception = UserError("one pixel is too little")
        sampler = SimpleNamespace(steps=1, guidance_scale=1.0)
        self.model = SimpleNamespace(
            sampler=sampler,
            one_step=True,
            guided=False,
            colour_fix="none",
            precision="float32",
            autoencoder_precision="float32",
            notes=(),
        )
        if open_:
            self.gate.set()

    def preset(self, name):
        return {"strength": 0.5}

    def check(self, **settings):
        if settings.get("guidance_scale") is not None:
            raise UserError("the fake is a one-step model")

    def restore_batch(self, photos, *, seeds, progress, output, scale, preview, **settings):
        self.calls.append(len(photos))
        self.watched += preview is not None
        if preview is not None:
            for index, photo in enumerate(photos):
                preview(index, photo.pixels[:2, :2])
        self.begun.set()
        progress(0.0)
        while not self.gate.wait(0.02):
            try:
                progress(0.5)
            except Exception:
                self.broken_off += 1
                raise
        if any(photo.size == (1, 1) for photo in photos):
            raise self.fails
        pixels = [np.rint(enlarged(photo.pixels, scale) * 255) for photo in photos]
        return [
            dataclasses.replace(photo, pixels=values.astype(np.uint8))
            for photo, values in zip(photos, pixels, strict=True)
        ]


def png(size=(16, 16), mode="RGB", form="PNG") -> bytes:
    """The bytes of a picture."""
    image, file = Image.linear_gradient("L").resize(size).convert(mode), io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def fields(**given) -> Fields:
    """Fields for a picture that is enlarged twice."""
    return Fields(**({"scale": 2} | given))


def until(condition, seconds=10.0):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
