"""Time a model: latency, throughput and the share of each stage."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.cli.arguments import add_engine_arguments, load_model, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``visionrt bench``."""
    add_engine_arguments(parser, flag=False)
    parser.add_argument("--image", metavar="FILE", help="default: a synthetic 1280×720 frame")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images per call")
    parser.add_argument("--callers", type=positive, default=1, metavar="N", help="calling threads")
    parser.add_argument(
        "--warmup", "--warmUp", type=float, default=500.0, metavar="MS", help="default: 500 ms"
    )
    parser.add_argument(
        "--duration", type=float, default=3.0, metavar="S", help="at least this long (3 s)"
    )
    parser.add_argument(
        "--iterations", type=positive, default=10, metavar="N", help="at least this many calls"
    )
    parser.add_argument(
        "--percentile",
        type=_percentiles,
        default=(90.0, 95.0, 99.0),
        metavar="P[,P…]",
        help="default: 90,95,99",
    )
    parser.add_argument("--compare", type=Path, metavar="OTHER", help="time another engine in turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from visionrt.bench import Plan, compare, measure
    from visionrt.errors import UsageError

    plan = Plan(args.warmup, args.duration, args.iterations, args.callers)
    if args.compare is not None and args.callers > 1:
        raise UsageError(
            "one caller with --compare", got=str(args.callers), fix="Leave --callers out."
        )
    batch = [_frame(args.image)] * args.batch
    body: dict[str, Any] = {}
    with load_model(args) as model:
        if args.compare is None:
            timing = measure(model, batch, plan)
            body = _describe(args.engine, model.device, model.backend.name)
            body |= timing.to_json(args.percentile)
        else:
            with load_model(args, args.compare) as other:
                ours, theirs, ratios = compare(model, other, batch, plan)
                body["engines"] = [
                    _describe(p, m.device, m.backend.name) | t.to_json(args.percentile)
                    for p, m, t in (
                        (args.engine, model, ours),
                        (args.compare, other, theirs),
                    )
                ]
                low, middle, high = np.percentile(ratios, [25, 50, 75])
                body["speedup"] = {"median": middle, "quartiles": [low, high]}
    if args.json:
        print(json.dumps(body))
    else:
        print(_as_text(body))
    return 0


def _describe(path: Path, device: str, backend: str) -> dict[str, Any]:
    return {"engine": str(path), "device": device, "backend": backend}


def _frame(image: str | None) -> NDArray[np.uint8]:
    if image is not None:
        from visionrt.image_io import decode

        return decode(image)
    # Smooth gradients with some texture: JPEG-like content, the same on every machine.
    y, x = np.mgrid[0:720, 0:1280]
    channels = [(x * 255) // 1279, (y * 255) // 719, (x * 7 + y * 13) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _percentiles(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(0 < value < 100 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: each must be between 0 and 100")
    return values


def _as_text(body: dict[str, Any]) -> str:
    engines = body.get("engines", [body])
    lines = []
    for engine in engines:
        latency = engine["latency_ms"]
        lines.append(f"{engine['engine']} on {engine['device']} ({engine['backend']})")
        lines.append(
            f"  {engine['calls']} calls of {engine['batch']}, {engine['callers']} caller(s): "
            f"{engine['images_per_second']:.1f} images/s"
        )
        lines.append("  latency  " + "  ".join(f"{k} {v:.2f}" for k, v in latency.items()) + "  ms")
        total = sum(engine["stages_ms"].values()) or 1.0
        stages = (f"{k} {v:.2f} ms ({v / total:.0%})" for k, v in engine["stages_ms"].items())
        lines.append("  stages   " + "  ".join(stages))
    if "speedup" in body:
        low, high = body["speedup"]["quartiles"]
        lines.append(
            f"{engines[0]['engine']} is {body['speedup']['median']:.2f}× as fast as "
            f"{engines[1]['engine']} (middle half of the calls: {low:.2f}× to {high:.2f}×)"
        )
    return "\n".join(lines)
