"""Run a model on images: annotated pictures, and results as text, JSON or CSV."""

from __future__ import annotations

import argparse
import csv
import glob
import json
import sys
from pathlib import Path
from typing import Any

from visionrt.cli.arguments import add_engine_arguments, load_model, probability
from visionrt.cli.progress import ProgressLine
from visionrt.errors import InputDataError, UsageError
from visionrt.results import Result

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``visionrt predict``."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="image, folder or glob")
    add_engine_arguments(parser, flag=True)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="where pictures are written (default: predictions)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="do not draw anything")
    parser.add_argument("--confidence", type=probability, metavar="P", help="score threshold")
    parser.add_argument("--iou", type=probability, metavar="P", help="NMS threshold")
    parser.add_argument("--max-det", type=int, metavar="N", help="most detections per image")
    parser.add_argument("--classes", type=int, nargs="+", metavar="ID", help="only these class ids")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="classes shown")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--csv", action="store_true", help="print a table with a row per object")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    """Predict; exit code 8 when some image could not be used, after all others were."""
    paths = expand(args.sources)
    options = {
        "confidence": args.confidence,
        "iou": args.iou,
        "max_det": args.max_det,
        "classes": args.classes,
        "top_k": args.top_k,
    }
    names = picture_names(paths)
    broken: list[dict[str, str]] = []
    done: list[tuple[Path, Result]] = []
    with load_model(args) as model, ProgressLine(len(paths), enabled=not args.quiet) as progress:
        if not args.no_pictures:
            _make_folder(args.output)
        for index, path in enumerate(paths):
            progress.step(index, path.name)
            try:
                result = model(path, **options)
                if not args.no_pictures:
                    result.save(args.output / names[path])
            except InputDataError as error:
                progress.message(f"error: {path}: {error}")
                broken.append({"image": str(path), "error": str(error)})
                continue
            # A result holds its picture until it is drawn; after that only the figures are kept.
            result.source = None
            done.append((path, result))
            if not (args.json or args.csv or args.quiet):
                print(f"{path}: {result}")
    if args.json:
        body = {
            "engine": str(args.engine),
            "results": [{"image": str(p), **r.to_json()} for p, r in done],
            "errors": broken,
        }
        print(json.dumps(body))
    elif args.csv:
        _write_csv(done)
    elif not args.quiet and done and not args.no_pictures:
        plural = "" if len(done) == 1 else "s"
        print(f"{len(done)} picture{plural} in {args.output}")
    return InputDataError.exit_code if broken else 0


def expand(sources: list[str]) -> list[Path]:
    """The image files that files, folders and globs name, in order, each once.

    Raises:
        InputDataError: a source that names nothing.
    """
    out: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            # Path.glob takes no absolute pattern.
            found = sorted(Path(p) for p in glob.glob(source, recursive=True))  # noqa: PTH207
            found = [p for p in found if p.is_file()]
        if not found:
            raise InputDataError(
                f"at least one image at {source}",
                got="none",
                fix=f"Give an image, a folder of {' '.join(sorted(SUFFIXES))} files, or a glob.",
            )
        out.update(dict.fromkeys(found))
    return list(out)


def picture_names(paths: list[Path]) -> dict[Path, str]:
    """A file name for each annotated picture: the image's stem, made distinct where needed."""
    out: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name = f"{path.stem}.jpg"
        number = 2
        while name in taken:
            name = f"{path.stem}-{number}.jpg"
            number += 1
        taken.add(name)
        out[path] = name
    return out


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "a folder for the pictures",
            got=f"{path} ({error.strerror})",
            fix="Choose another with --output.",
        ) from error


def _write_csv(done: list[tuple[Path, Result]]) -> None:
    rows: list[dict[str, Any]] = []
    for path, result in done:
        rows += [{"image": str(path), **row} for row in result.rows()]
    fields = list(dict.fromkeys(key for row in rows for key in row)) or ["image"]
    writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
