"""Flags that the commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

import visionrt
from visionrt.model import Model
from visionrt.pipeline import DECODES


def add_engine_arguments(parser: argparse.ArgumentParser, *, flag: bool) -> None:
    """Declare the engine file (``-m ENGINE`` or a positional) and where it runs."""
    if flag:
        parser.add_argument(
            "-m",
            "--engine",
            "--model",
            required=True,
            type=Path,
            metavar="ENGINE",
            help="engine file",
        )
    else:
        parser.add_argument("engine", type=Path, metavar="ENGINE", help="engine file")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: auto)")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), help="of the CPU twin")
    parser.add_argument(
        "--no-rebuild",
        dest="rebuild",
        action="store_false",
        help="do not build a plan for this GPU where the file has none",
    )
    parser.add_argument(
        "--decode",
        choices=DECODES,
        default="auto",
        help="JPEGs at a scale no smaller than the tensor (auto: if the resize averages), or exact",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="engine threads on the CPU")


def load_model(args: argparse.Namespace, path: Path | None = None) -> Model:
    """Open the engine that the flags name, or another one with the same flags."""
    return visionrt.load(
        path or args.engine,
        device=args.device,
        backend=args.backend,
        threads=args.threads,
        rebuild=args.rebuild,
        decode=args.decode,
    )


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def probability(text: str) -> float:
    """A number in 0…1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0…1")
    return value
