"""Subcommands of `vosr`, one per file; `add_parser(commands)` defines its options and function.

What loads JAX, NumPy or Pillow is imported in functions, so help and usage errors appear at once.
"""
