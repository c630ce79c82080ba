"""Takes one thing out of an engine file."""

from __future__ import annotations

import json

from trtconvert.output import RANGES, REPORT
from visionrt.engine_file import EngineFile
from visionrt.errors import UsageError

WHAT = ("onnx", "typed", "manifest", "report", "ranges")


def extract(file: EngineFile, what: str) -> bytes:
    """The bytes of what is asked for: one of :data:`WHAT`.

    Raises:
        UsageError: the file has no such thing.
        EngineFileError: the member was changed.
    """
    manifest = file.manifest
    if what == "manifest":
        return (json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
    member = {
        "onnx": manifest.twin,
        "typed": manifest.typed_graph,
        "report": REPORT,
        "ranges": RANGES,
    }[what]
    if member is None or member not in manifest.members:
        raise UsageError(
            f"a file with {what} inside",
            got=f"one with {', '.join(sorted(manifest.members))}",
            fix="Extract one of those. Twins come with --target cpu, ranges with --calib.",
        )
    return file.read(member)


def extract_plan(file: EngineFile, target: str) -> bytes:
    """The raw plan of a target, e.g. ``rtx:sm86``; ``rtx`` or a member's name do where one fits.

    Raises:
        UsageError: no plan, or several, of that name.
        EngineFileError: the plan was changed.
    """
    plans = file.manifest.plans
    found = [plan for plan in plans if target in (plan.target, plan.member)]
    found = found or [plan for plan in plans if plan.target.partition(":")[0] == target]
    if len(found) != 1:
        raise UsageError(
            f"one of the plans {', '.join(plan.target for plan in plans) or '(there are none)'}",
            got=target,
            fix="Name one of them.",
        )
    return file.read(found[0].member)
