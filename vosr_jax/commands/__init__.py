"""The subcommands of `vosr`, one a file: `add_parser(commands)` says what each takes and runs.

Imports inside are lazy, so that help and mistakes answer at once.
"""
