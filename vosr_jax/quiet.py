"""Keeps the words of libraries that say nothing to the person at the keyboard off the terminal."""

import os

_LIBRARIES = ("orbax", "grain", "clu", "etils", "tensorflow", "tensorboard")


def quiet_libraries() -> None:
    """Leave out notices of libraries, not their errors; call it before they are imported."""
    # TensorFlow, here for event files alone, otherwise prints how it rounds.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from absl import logging

    handler = logging.get_absl_handler()
    if _is_wanted not in handler.filters:
        handler.addFilter(_is_wanted)


def _is_wanted(record) -> bool:
    import logging

    inside = any(f"{os.sep}{library}{os.sep}" in record.pathname for library in _LIBRARIES)
    return record.levelno >= logging.ERROR or not inside
