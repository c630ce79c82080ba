"""Time ways to run an engine file on this CPU, and store the fastest in it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from visionrt.cli.progress import ProgressLine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``visionrt tune``."""
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="engine file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    """Time, store and print."""
    from visionrt.tuning import step_count, tune_file

    with ProgressLine(step_count(), enabled=not args.quiet) as line:
        choice = tune_file(args.engine, lambda done, _: line.step(done, "timing"))
    if choice.doubt and not args.quiet:
        sys.stderr.write(
            f"warning: {choice.doubt}; another choice may be better: repeat this on a quiet "
            "machine\n"
        )
    if args.json:
        print(json.dumps(choice.to_json()))
    elif not args.quiet:
        print(f"{args.engine} on {choice.cpu}:")
        print(f"  a call    {choice.call}: {choice.call_ms:.2f} ms")
        print(f"  a stream  {choice.stream}: {choice.stream_per_second:.1f} runs/s")
    return 0
