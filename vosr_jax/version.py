"""The version, which setup.py states too."""

__version__ = "0.1.0"
