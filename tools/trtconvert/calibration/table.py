"""Activation ranges to and from a JSON file, so that a second build need not see the images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.atomic import write_bytes
from visionrt.errors import UsageError
from visionrt.spec import PreprocessSpec

FORMAT = "trtconvert-ranges"
VERSION = 1


def write_table(path: Path, thresholds: Mapping[str, float], method: str) -> None:
    """Write thresholds by tensor name.

    Raises:
        InputDataError: the file cannot be written.
    """
    write_bytes(path, table_bytes(thresholds, method))


def table_bytes(
    thresholds: Mapping[str, float],
    method: str,
    spec: PreprocessSpec | None = None,
    factors: Mapping[str, NDArray[np.float32]] | None = None,
) -> bytes:
    """Thresholds by tensor name, in the form that :func:`read_table` reads.

    ``spec`` is what the images were read with; it is stored, so that a later use can be compared.
    ``factors`` are what channels were divided by before the thresholds were measured.
    """
    value = {
        "format": FORMAT,
        "version": VERSION,
        "method": method,
        **({} if spec is None else {"preprocess": spec.to_json()}),
        "thresholds": dict(sorted(thresholds.items())),
        "channel_factors": {name: f.tolist() for name, f in sorted((factors or {}).items())},
    }
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def read_table(path: Path, tensors: Sequence[str]) -> tuple[dict[str, float], str]:
    """Thresholds of ``tensors``, and the method they came from.

    Raises:
        UsageError: no such file, another format, a value that is no finite number of at least 0,
            or a tensor without a value.
    """
    value = _read(path)
    table = value.get("thresholds")
    if not isinstance(table, dict) or not all(map(_is_threshold, table.values())):
        raise _bad(path, "a threshold that is no finite number of at least 0")
    missing = [name for name in tensors if name not in table]
    if missing:
        raise UsageError(
            f"{path} to have a range for each of the {len(tensors)} int8 tensors",
            got=f"none for {len(missing)} of them, {missing[0]!r} first",
            fix="It was written for another model: calibrate with --calib.",
        )
    return {name: float(table[name]) for name in tensors}, str(value.get("method", "unknown"))


def table_spec(path: Path) -> dict[str, Any] | None:
    """The preprocess spec that a table's ranges were measured with; None where it does not say.

    Raises:
        UsageError: no such file, or another format.
    """
    spec = _read(path).get("preprocess")
    if spec is not None and not isinstance(spec, dict):
        raise _bad(path, "a preprocess spec that is no object")
    return spec


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _bad(path, str(error)) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise _bad(path, "something else")
    if value.get("version") != VERSION:
        raise _bad(path, f"version {value.get('version')}")
    return value


def read_factors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Factors of channels by the first tensor of their group; empty in a table without.

    Raises:
        UsageError: as :func:`read_table`, or a factor that is no finite number above 0.
    """
    table = _read(path).get("channel_factors", {})
    if not isinstance(table, dict) or not all(map(_are_factors, table.values())):
        raise _bad(path, "channel factors that are no finite numbers above 0")
    return {name: np.asarray(values, np.float32) for name, values in table.items()}


def _are_factors(values: object) -> bool:
    return isinstance(values, list) and all(_is_threshold(v) and v > 0 for v in values)


def _is_threshold(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value >= 0


def _bad(path: Path, got: str) -> UsageError:
    return UsageError(
        f"a table of ranges, version {VERSION}, in {path}",
        got=got,
        fix="Give a file that --save-ranges wrote.",
    )
