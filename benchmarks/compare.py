"""Compares two result files of ``benchmarks/run.py``: ``compare.py OLD.json NEW.json``.

Ratios against the peers are compared, not times: both files measured the same peers, so a faster
or slower machine cancels out. A gap in microseconds has no peer to cancel it, so it is slower only
where it also is past its target. Exits 1 when something is slower by more than ``--tolerance``, and
2 when there is nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """The results of a file. Exits with 2 where it holds none."""
    try:
        results: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"expected a result file of run.py in {path}, got {error!r}\n")
        raise SystemExit(2) from error
    return results


def ratios(results: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Median ratio by (what, peer)."""
    return {(r["name"], p): v["median"] for r in results for p, v in r["ratio"].items()}


def gaps(results: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Median gap and its target, microseconds."""
    found = [(r["name"], r["gap_us"]) for r in results if "gap_us" in r]
    return {name: (gap["median"], gap["target"]) for name, gap in found}


def main() -> int:
    """Print a line per shared case; report regressions."""
    parser = argparse.ArgumentParser(description="Compare two benchmark result files.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.15, help="share; default 0.15")
    args = parser.parse_args()
    before, after = read(args.old), read(args.new)
    slower = 0
    old, new = ratios(before), ratios(after)
    for key in sorted(old.keys() & new.keys()):
        change = new[key] / old[key] - 1
        flag = ""
        if change < -args.tolerance:
            slower += 1
            flag = "  slower"
        print(f"{key[0]} against {key[1]}: {old[key]:.2f}× → {new[key]:.2f}× ({change:+.0%}){flag}")
    old_gaps, new_gaps = gaps(before), gaps(after)
    for name in sorted(old_gaps.keys() & new_gaps.keys()):
        (was, _), (now, target) = old_gaps[name], new_gaps[name]
        flag = ""
        if now > (1 + args.tolerance) * max(was, target):
            slower += 1
            flag = "  slower"
        print(f"{name}: {was:.0f} µs → {now:.0f} µs, at most {target:g}{flag}")
    missing = sorted(old.keys() ^ new.keys())
    if missing:
        print(f"only in one file: {missing}")
    if not old.keys() & new.keys():
        sys.stderr.write("expected two files with a case in common, got none\n")
        return 2
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
