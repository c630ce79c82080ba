"""The commands of ``trtconvert``, and how their errors become exit codes."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from trtconvert.cli.build import build
from trtconvert.cli.check import check
from trtconvert.cli.extract import extract
from trtconvert.cli.guess import guess
from trtconvert.cli.inspect import inspect
from trtconvert.cli.verify import verify
from trtconvert.version import installed_version
from visionrt.errors import UsageError, VisionrtError

INTERRUPTED = 130
_GROUP_FLAGS = ("--help", "-h", "--version")


class DefaultBuildGroup(click.Group):
    """A group whose command may be left out: ``trtconvert MODEL …`` builds."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _GROUP_FLAGS:
            first = args[0]
            if first.startswith("-") or "." in first or "/" in first or Path(first).exists():
                args = ["build", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, 1)
            hint = f" Did you mean {near[0]}?" if near else f" Commands: {', '.join(self.commands)}."
            raise click.UsageError(f"No such command or model {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=DefaultBuildGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(installed_version(), prog_name="trtconvert")
def cli() -> None:
    """Convert pre-trained ONNX vision models to verified engine files.

    `trtconvert MODEL …` is the same as `trtconvert build MODEL …`.
    """


for _command in (build, check, inspect, verify, extract, guess):
    cli.add_command(_command)


def run(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code. Exceptions that are bugs pass through."""
    args = list(argv)
    try:
        with cli.make_context("trtconvert", args) as context:
            cli.invoke(context)
    except VisionrtError as error:
        return _failed(argv, str(error), error.exit_code)
    except click.UsageError as error:
        usage = error.ctx.command_path if error.ctx is not None else "trtconvert"
        text = f"{error.format_message().rstrip('.')}. See: {usage} --help"
        return _failed(argv, text, UsageError.exit_code)
    except click.ClickException as error:
        return _failed(argv, error.format_message(), UsageError.exit_code)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _failed(argv, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone. Keep the interpreter from flushing into it at exit.
        sys.stderr.close()
        return 0
    return 0


def _failed(argv: Sequence[str], message: str, exit_code: int) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"error: {line}\n")
    if "--json" in argv:
        sys.stdout.write(json.dumps({"error": line, "exit_code": exit_code}) + "\n")
    return exit_code
