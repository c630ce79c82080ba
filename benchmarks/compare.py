"""Compares two result files of ``benchmarks/run.py``: ``compare.py OLD.json NEW.json``.

Ratios against the peers are compared, not times: both files measured the same peers, so a faster
or slower machine cancels out. Exits 1 when a ratio fell by more than ``--tolerance``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def ratios(path: Path) -> dict[tuple[str, str], float]:
    """Median ratio by (what, peer)."""
    results = json.loads(path.read_text())["results"]
    return {(r["name"], p): v["median"] for r in results for p, v in r["ratio"].items()}


def main() -> int:
    """Print a line per shared case; report regressions."""
    parser = argparse.ArgumentParser(description="Compare two benchmark result files.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.15, help="share; default 0.15")
    args = parser.parse_args()
    old, new = ratios(args.old), ratios(args.new)
    slower = 0
    for key in sorted(old.keys() & new.keys()):
        change = new[key] / old[key] - 1
        flag = ""
        if change < -args.tolerance:
            slower += 1
            flag = "  slower"
        print(f"{key[0]} against {key[1]}: {old[key]:.2f}× → {new[key]:.2f}× ({change:+.0%}){flag}")
    missing = sorted(old.keys() ^ new.keys())
    if missing:
        print(f"only in one file: {missing}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
