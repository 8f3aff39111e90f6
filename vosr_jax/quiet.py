"""Filter of library notices that do not concern the user."""

import os

_LIBRARIES = ("orbax", "grain", "clu", "etils", "tensorflow", "tensorboard")


def quiet_libraries() -> None:
    """Hide notices of libraries but not their errors; call this before they are imported."""
    # TensorFlow, used for event files alone, otherwise prints a notice about its rounding.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from absl import logging

    handler = logging.get_absl_handler()
    if _is_wanted not in handler.filters:
        handler.addFilter(_is_wanted)


def _is_wanted(record) -> bool:
    import logging

    inside = any(f"{os.sep}{library}{os.sep}" in record.pathname for library in _LIBRARIES)
    return record.levelno >= logging.ERROR or not inside
