"""A config file that another one starts from."""

import importlib.util
from pathlib import Path
from types import ModuleType


def parent(child: str, name: str) -> ModuleType:
    """Load the config file of that name beside another.

    Args:
      child: `__file__` of the one that asks.
      name: without .py.
    """
    path = Path(child).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
