"""The commands of ``trtconvert``, and how their errors become exit codes."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from trtconvert.cli.audit import audit_command
from trtconvert.cli.build import build
from trtconvert.cli.check import check
from trtconvert.cli.debug import debug
from trtconvert.cli.diff import diff
from trtconvert.cli.extract import extract
from trtconvert.cli.guess import guess
from trtconvert.cli.inspect import inspect
from trtconvert.cli.verify import verify
from visionrt.errors import UsageError, VisionrtError
from visionrt.version import __version__

INTERRUPTED = 130
_GROUP_FLAGS = ("--help", "-h", "--version")


class DefaultBuildGroup(click.Group):
    """A group whose command may be left out: ``trtconvert MODEL …`` builds."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``build`` before what is no command but looks like a model or a flag."""
        if args and args[0] not in self.commands and args[0] not in _GROUP_FLAGS:
            first = args[0]
            if first.startswith("-") or "." in first or "/" in first or Path(first).exists():
                args = ["build", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the near miss."""
        name = args[0]
        if name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, 1)
            hint = (
                f" Did you mean {near[0]}?" if near else f" Commands: {', '.join(self.commands)}."
            )
            raise click.UsageError(f"No such command or model {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=DefaultBuildGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="trtconvert")
@click.pass_context
def cli(context: click.Context) -> None:
    """Convert pre-trained ONNX vision models to verified engine files.

    `trtconvert MODEL …` is the same as `trtconvert build MODEL …`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(UsageError.exit_code)


for _command in (build, check, inspect, verify, diff, debug, extract, guess, audit_command):
    cli.add_command(_command)


def run(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code. Exceptions that are bugs pass through."""
    try:
        with cli.make_context("trtconvert", list(argv)) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except BrokenPipeError:
        # The reader (head, less) has gone; what is left is flushed at exit, to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (VisionrtError, click.ClickException, click.Abort, KeyboardInterrupt) as error:
        message, exit_code = _explain(error)
        sys.stderr.write(f"error: {message}\n")
        if "--json" in argv:
            sys.stdout.write(json.dumps({"error": message, "exit_code": exit_code}) + "\n")
        return exit_code
    return 0


def _explain(error: BaseException) -> tuple[str, int]:
    """One line for people, and the exit code."""
    if isinstance(error, VisionrtError):
        return " ".join(str(error).split()), error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "trtconvert"
        message = " ".join(error.format_message().split()).rstrip(".")
        return f"{message}. See: {command} --help", UsageError.exit_code
    return "interrupted", INTERRUPTED
