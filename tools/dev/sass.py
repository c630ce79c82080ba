"""128-bit accesses to device memory in the machine code of a cubin, read with nvdisasm."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_LABEL = re.compile(r"^\s*\.text\.(\w+):")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)")
# LDG and STG address device memory; plain LD and ST could, but never do where the compiler knows.
_ACCESSES = {"LDG": "load", "STG": "store"}


def wide_accesses(listing: str) -> dict[str, set[str]]:
    """By kernel: "load" and "store" where the listing of nvdisasm has LDG or STG of 128 bits."""
    out: dict[str, set[str]] = {}
    kernel = ""
    for line in listing.splitlines():
        if match := _LABEL.match(line):
            kernel = match[1]
            out[kernel] = set()
        elif (match := _INSTRUCTION.search(line)) and kernel:
            name, *modifiers = match[1].split(".")
            if name in _ACCESSES and "128" in modifiers:
                out[kernel].add(_ACCESSES[name])
    return out


def disassemble(nvdisasm: Path, cubin: Path) -> str:
    """The listing of a cubin. Raises CalledProcessError when the tool refuses it."""
    command = [str(nvdisasm), "-c", str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
