"""Subcommands of `vosr`, one per file; `add_parser(commands)` defines its options and function.

Their imports are lazy, so help and usage errors appear at once.
"""
