"""``visionrt``: predict, bench, tune, doctor."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from visionrt.cli import bench, doctor, predict, tune
from visionrt.errors import UsageError, VisionrtError
from visionrt.version import __version__

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the near miss and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave. argparse calls this on every wrong argument."""
        hint = self._near_miss(message)
        sys.stderr.write(f"error: {message}.{hint} See: {self.prog} --help\n")
        raise SystemExit(UsageError.exit_code)

    def _near_miss(self, message: str) -> str:
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                known += list(action.choices)
        for word in message.replace("'", " ").replace("=", " ").split():
            if word in known:
                continue
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
            if close:
                return f" Did you mean {close[0]}?"
        return ""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, for the program and for the documentation test."""
    parser = Parser(prog="visionrt", description="Run engine files made by trtconvert.")
    parser.add_argument("--version", action="version", version=f"visionrt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (predict, bench, tune, doctor):
        name = module.__name__.rpartition(".")[2]
        text = (module.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except VisionrtError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; what is left is flushed at exit, to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: Sequence[str] | None) -> int:
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        # parse_args would report these from the top parser, which does not know the near misses.
        subparser = _subparser(args.command)
        subparser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return int(args.run(args))


def _subparser(command: str) -> argparse.ArgumentParser:
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser = action.choices[command]
            return found
    raise LookupError(command)
