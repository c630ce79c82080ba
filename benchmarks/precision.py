"""Compares int8 conversions of real models with those of other tools, in one run.

    python benchmarks/precision.py --make-environments DIR     # once: the other tools, by pip
    python benchmarks/precision.py --environments DIR

Every tool starts from the same clean graph and the same calibration photos, in a process of its
own whose CPU time and peak memory the operating system counts. Every result is judged alike, on
photos that no tool saw, by the task's metric against the float32 original; see
``precision_judge.py``. A tool that is not here is named in the table as not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from harness import machine
from peers.environments import make_environments, python_for
from peers.protocol import Job
from precision_judge import Judge, int8_share, objections
from precision_methods import METHOD_NAMES, METHODS, PEERS, Method, PeerError, run_method
from precision_report import Body, Line, report
from precision_subjects import FLAGS, Photos, Subject, read_subject, split_photos, write_tensors
from trtconvert.targets.rtx import RtxTarget
from visionrt.atomic import write_bytes
from visionrt.errors import UsageError, VisionrtError

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run what the command line asks for. Returns 1 when a tool that is here failed."""
    options = _parse()
    if options.make_environments:
        failed = make_environments(options.make_environments, options.peers)
        print(f"could not be installed: {', '.join(failed)}" if failed else "all are there")
        return int(bool(failed))
    if options.build_rtx:
        RtxTarget((options.build_rtx,)).check()
    photos = split_photos(options.calibration, options.photos)
    body = _body(options, photos)
    for name in options.models:
        subject = read_subject(name)
        judge = Judge(subject, photos.held_out)
        body["references"][name] = judge.reference
        with tempfile.TemporaryDirectory() as folder:
            tensors = Path(folder) / "calibration"
            write_tensors(photos, subject.recipe, tensors)
            for method in METHODS:
                if method.peer not in options.peers or method.name not in options.methods:
                    continue
                line = _measure(method, subject, judge, photos, tensors, options)
                print(f"{name}: {method.peer}, {method.name}: {line['status']}", file=sys.stderr)
                _store(body, line, options.json)
    print(report(body))
    return int(any(line["status"] == "failed" for line in body["lines"]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare int8 conversions with other tools.")
    parser.add_argument("--make-environments", type=Path, metavar="DIR", help="install and stop")
    parser.add_argument(
        "--environments",
        type=Path,
        metavar="DIR",
        default=ROOT / ".venv" / "peers",
        help="made with --make-environments; default: .venv/peers",
    )
    parser.add_argument("--models", type=_names(tuple(FLAGS)), default=tuple(FLAGS))
    parser.add_argument("--peers", type=_names(PEERS), default=PEERS)
    parser.add_argument("--methods", type=_names(METHOD_NAMES), default=METHOD_NAMES)
    parser.add_argument(
        "--photos", type=_positive, metavar="N", help="judge on so many; default: all"
    )
    parser.add_argument(
        "--calibration", type=_positive, metavar="N", default=48, help="default: 48"
    )
    parser.add_argument("--cores", type=_positive, metavar="N", help="of the tools; default: all")
    parser.add_argument("--timeout", type=float, metavar="S", default=1800.0, help="of each tool")
    parser.add_argument(
        "--build-rtx",
        nargs="?",
        const="86",
        metavar="SM",
        help="also build each graph in TensorRT-RTX, for SM 86 unless another is named",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/precision.json"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the lines of FILE that are not measured again"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: not a number of at least 1")
    return int(text)


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: no such name; there are {', '.join(known)}"
            )
        return names

    return parse


def _body(options: argparse.Namespace, photos: Photos) -> Body:
    """What the file begins with: the conditions, and with ``--keep`` the lines it has.

    Raises:
        UsageError: those were measured under other conditions.
    """
    conditions = {
        "calibration": [path.name for path in photos.calibration],
        "held_out": [path.name for path in photos.held_out],
        "cores": options.cores,
    }
    body: Body = {"machine": machine(), **conditions, "references": {}, "lines": []}
    if options.keep and options.json.exists():
        kept = json.loads(options.json.read_text())
        changed = [key for key, value in conditions.items() if kept[key] != value]
        if changed:
            raise UsageError(
                "the conditions under which the kept lines were measured",
                got=f"other {' and '.join(changed)}",
                fix="Give the same flags again, or leave --keep out.",
            )
        body |= {"references": kept["references"], "lines": kept["lines"]}
    return body


def _measure(
    method: Method,
    subject: Subject,
    judge: Judge,
    photos: Photos,
    tensors: Path,
    options: argparse.Namespace,
) -> Line:
    """One line of the table, measured, failed or not run."""
    line: Line = {
        "model": subject.name,
        "task": subject.recipe.task,
        "peer": method.peer,
        "method": method.name,
        "settings": dict(method.settings),
    }
    python = python_for(method.peer, options.environments)
    if python is None:
        return line | {
            "status": "not run",
            "reason": f"no environment for {method.peer} in {options.environments}; "
            "make it with --make-environments",
        }
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            Path(folder) / "clean.onnx",
            tensors,
            Path(folder) / "quantized.onnx",
            dict(method.settings),
            subject.recipe.to_json(),
            photos.calibration,
        )
        onnx.save(subject.clean, job.model)
        try:
            usage, closing = run_method(
                python, method, job, cores=options.cores, timeout_s=options.timeout
            )
            graph = onnx.load(job.output)
            line |= {"figures": judge(graph), "int8_share": int8_share(graph)}
        except (PeerError, VisionrtError) as error:
            return line | {"status": "failed", "reason": str(error)}
    line |= {
        "status": "measured",
        "cpu_seconds": usage.cpu_seconds,
        "wall_seconds": usage.wall_seconds,
        "peak_rss_bytes": usage.peak_rss_bytes,
        **closing,
        "objections": objections(graph),
    }
    return line | ({"rtx": _rtx(graph, subject, options.build_rtx)} if options.build_rtx else {})


def _rtx(graph: onnx.ModelProto, subject: Subject, sm: str) -> str:
    try:
        RtxTarget((sm,)).build(graph.SerializeToString(), subject.shapes, None)
    except VisionrtError as error:
        return error.got
    return "builds"


def _store(body: Body, line: Line, path: Path) -> None:
    """Put the line in place of an older one of the same method, and write the file."""
    order = [(name, method.peer, method.name) for name in FLAGS for method in METHODS]
    lines = {(kept["model"], kept["peer"], kept["method"]): kept for kept in body["lines"]}
    lines[line["model"], line["peer"], line["method"]] = line
    body["lines"] = [lines[key] for key in order if key in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(body, indent=1) + "\n").encode())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VisionrtError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
