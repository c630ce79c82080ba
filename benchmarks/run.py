"""Runs the quick benchmarks and prints one table: ``make bench``, or ``run.py [--json FILE]``."""

from __future__ import annotations

import argparse
from pathlib import Path

import bench_detections
import bench_end_to_end
import bench_preprocess
from harness import measure, save, table


def main() -> None:
    """Measure every case; print the table."""
    parser = argparse.ArgumentParser(description="Run the quick benchmarks.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    args = parser.parse_args()
    modules = (bench_preprocess, bench_detections, bench_end_to_end)
    results = [measure(case) for module in modules for case in module.cases()]
    print(table(results))
    if args.json:
        save(results, args.json)


if __name__ == "__main__":
    main()
