"""Parser of the `vosr` command; a mistake gives two lines with a suggestion."""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import vosr_jax
from vosr_jax.commands import (
    card,
    compile,
    convert,
    data,
    export_program,
    info,
    plan,
    push,
    serve,
    sweep,
    train_on,
    upscale,
)

# {name of a flag in other upscalers: our name}
_ELSEWHERE = {
    **dict.fromkeys(("--scale", "--outscale", "-s", "--factor"), "-u or --upscale"),
    **dict.fromkeys(("-n", "--model-name", "--model_name", "--model_path"), "-m or --model"),
    **dict.fromkeys(("-t", "--tile", "--tile_size"), "--tile-size"),
    **dict.fromkeys(("-f", "--ext", "--output-format"), "--format"),
    **dict.fromkeys(("--output", "--output_dir", "--outdir"), "-o or --out"),
    **dict.fromkeys(("-f16", "--fp16", "--fp32", "--half"), "--precision"),
}
_INPUTS = ("-i", "--input", "--input-dir", "--input_dir", "--indir", "--image")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a call; `overrides` holds the arguments that a command passes on.

    Raises:
      SystemExit: help, the version or a usage error, with its exit code.
    """
    parser = make_parser()
    arguments = parser.chosen(arguments).joined(arguments)
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        parser.chosen(arguments).unknown(rest)
    options.overrides = rest
    return options


def make_parser() -> "Parser":
    """Make the parser with all subcommands."""
    parser = Parser(
        prog="vosr", description="Restore and enlarge photographs with a generative model."
    )
    version = f"vosr_jax {vosr_jax.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    offered = (
        *(upscale, serve, compile, convert, export_program, card, push),
        *(info, data, train_on, plan, sweep),
    )
    for command in offered:
        command.add_parser(commands)
    return parser


class Parser(argparse.ArgumentParser):
    """An argparse parser with short errors that suggest what was meant."""

    def error(self, message: str) -> NoReturn:
        """Print two lines and exit with code 2."""
        self.exit(2, f"error: {message}\nsee: {self.prog} --help\n")

    def unknown(self, rest: Sequence[str]) -> NoReturn:
        """Refuse arguments that no flag takes."""
        first = next((word for word in rest if word.startswith("-")), rest[0])
        flag = first.split("=")[0]
        self.error(f"{flag} is no flag of {self.prog}{self._hint(flag)}")

    def chosen(self, arguments: Sequence[str]) -> "Parser":
        """Return the parser of the subcommand that a call names."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for number, word in enumerate(arguments):
                    if word in action.choices:
                        return action.choices[word].chosen(arguments[number + 1 :])
        return self

    def joined(self, arguments: Sequence[str]) -> list[str]:
        """Join --suffix with its value, or argparse would take -4x in --suffix -4x for a flag."""
        known = {name for action in self._actions for name in action.option_strings}
        call: list[str] = []
        for word in arguments:
            if call and call[-1] == "--suffix" and word.startswith("-") and word not in known:
                call[-1] = f"--suffix={word}"
            else:
                call.append(word)
        return call

    def _hint(self, flag: str) -> str:
        known = [name for action in self._actions for name in action.option_strings]
        elsewhere = _ELSEWHERE.get(flag)
        if elsewhere is not None and elsewhere.split()[-1] in known:
            return f"; did you mean {elsewhere}?"
        if flag in _INPUTS and any(action.dest == "paths" for action in self._actions):
            return "; pictures are named without one: vosr upscale PICTURE -o FOLDER"
        return did_you_mean(flag, [name for name in known if name.startswith("--")])

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = did_you_mean(str(value), known) or f"; choose {', '.join(known)}"
        raise argparse.ArgumentError(action, f"'{value}' is unknown{hint}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean NAME?" with the nearest known name, or ""."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), names, 1, 0.6)
    return f"; did you mean {names[near[0]]}?" if near else ""
