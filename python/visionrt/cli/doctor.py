"""Say what works on this machine, what is missing and how to get it."""

from __future__ import annotations

import argparse
import json

from visionrt.doctor import WORKS, Check, Report, examine

_USES = {
    "onnxruntime": "CPU twin",
    "openvino": "CPU twin",
    "tensorrt_rtx": "rtx plans",
    "tensorrt": "tensorrt plans",
    "gpu": "driver, PyCUDA, device",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``visionrt doctor``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 0 when a model can run at least on the CPU, else 6."""
    report = examine()
    if args.json:
        print(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(lines_of(report)))
    return report.exit_code


def lines_of(report: Report) -> list[str]:
    """The report for people, one line per finding."""
    system = report.system
    out = [
        f"visionrt {system['visionrt']}, Python {system['python']}, {system['platform']}",
        "",
        f"Engine plans run by  {report.will_use['engine plans'] or 'nothing on this machine'}",
        f"The CPU twin by      {report.will_use['cpu twin'] or 'nothing on this machine'}",
        f"CUDA kernels         {'in this build' if system['cuda kernels'] == 'yes' else 'none'}",
        "",
    ]
    for check in (*report.cpu, report.gpu, *report.gpu_libraries):
        out += _lines_of_check(check)
    packages = ", ".join(f"{n} {v or '(missing)'}" for n, v in report.packages.items())
    out += ["", f"Packages   {packages}"]
    if report.converter_missing:
        out.append(f"Converter  missing {', '.join(report.converter_missing)}")
        out.append('           Run: pip install "trtconvert[convert]"')
    else:
        out.append("Converter  complete")
    out += [f"Warning    {text}" for text in report.warnings]
    return out


def _lines_of_check(check: Check) -> list[str]:
    name = f"{check.name} {check.version}".strip()
    out = [f"{check.state:<14} {name:<28} {_USES[check.name]}"]
    if check.name == "gpu" and check.state == WORKS:
        gpu = check.details
        memory = gpu["memory_bytes"] / 2**30
        sm, driver = gpu["compute_capability"], gpu["driver_version"]
        out.append(f"{'':<15}{gpu['name']}, SM{sm}, {memory:.1f} GiB, driver for CUDA {driver}")
    if check.problem:
        out.append(f"{'':<15}{check.problem}")
    if check.cure:
        out.append(f"{'':<15}{check.cure}")
    return out
