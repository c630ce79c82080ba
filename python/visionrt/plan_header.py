"""Tells what the bytes of a plan are, without a library that could load them.

The header of a TensorRT-RTX plan is not documented; this layout was read off plans that version
1.7.1.116 built for each GPU (little endian):

==========  ============================================================
bytes       content
==========  ============================================================
0…3         ``vtrt``
16…23       size of the whole plan
24…27       version of the builder, one byte each: major, minor, patch, build
28…31       ``vtrt``
32…35       bit mask of the GPUs: bit 0 is SM75, then 80, 86, 89, 120, 121
==========  ============================================================

Full TensorRT's plans begin with another letter and the same ``trt``, with the version in the same
place. What cannot be read is left unknown, and then the library decides.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from visionrt.backends.trt_library import TENSORRT, TENSORRT_RTX
from visionrt.errors import EngineFileError

ULTRALYTICS = "ultralytics"
ONNX = "onnx"
ZIP = "zip"
UNKNOWN = "unknown"

_RTX_HEADER_BYTES = 64
_TRT_HEADER_BYTES = 28
_RTX_SMS = ("75", "80", "86", "89", "120", "121")  # by bit of the mask
_MAX_METADATA_BYTES = 1 << 20
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
# Fields of an ONNX ModelProto that may follow ir_version (field 1, a varint): their wire tags.
_ONNX_NEXT_TAGS = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72})
_MAX_IR_VERSION = 32


@dataclass(frozen=True)
class PlanHeader:
    """What a blob says about itself.

    Attributes:
        kind: ``tensorrt_rtx``, ``tensorrt``, ``ultralytics``, ``onnx``, ``zip`` or ``unknown``.
        version: of the builder, like ``1.7.1.116``; empty where it is not known.
        compute_capabilities: SM numbers the plan runs on; empty where the header does not say.
        missing_bytes: how many bytes the blob falls short of its own size, 0 when it is whole.
    """

    kind: str
    version: str = ""
    compute_capabilities: tuple[str, ...] = ()
    missing_bytes: int = 0

    @property
    def library(self) -> str:
        """The library that loads it: ``tensorrt`` or ``tensorrt_rtx``; empty for neither."""
        return self.kind if self.kind in (TENSORRT, TENSORRT_RTX) else ""

    def __str__(self) -> str:
        title = {
            TENSORRT: "a TensorRT plan",
            TENSORRT_RTX: "a TensorRT-RTX plan",
            ULTRALYTICS: "a TensorRT plan behind Ultralytics metadata",
            ONNX: "an ONNX model",
            ZIP: "a ZIP archive",
            UNKNOWN: "unknown bytes",
        }[self.kind]
        version = f" {self.version}" if self.version else ""
        gpus = ", ".join(f"SM{sm}" for sm in self.compute_capabilities)
        return f"{title}{version}{f' for {gpus}' if gpus else ''}"


def describe(plan: bytes) -> PlanHeader:
    """What the bytes are, from their first ones; never fails."""
    if plan[1:4] == b"trt":
        return _describe_rtx(plan) if plan[:1] == b"v" else _describe_tensorrt(plan)
    if plan[:4] in _ZIP_MAGICS:
        return PlanHeader(ZIP)
    size = _metadata_bytes(plan)
    if size and plan[5 + size : 8 + size] == b"trt":
        inner = describe(plan[4 + size :])
        return PlanHeader(
            ULTRALYTICS, inner.version, inner.compute_capabilities, inner.missing_bytes
        )
    if (
        len(plan) > 2
        and plan[0] == 0x08
        and 0 < plan[1] <= _MAX_IR_VERSION
        and plan[2] in _ONNX_NEXT_TAGS
    ):
        return PlanHeader(ONNX)
    return PlanHeader(UNKNOWN)


def split_ultralytics(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """The metadata and the plan of an engine that Ultralytics exported.

    Such a file is a 4-byte little-endian length, that many bytes of JSON, and the plan.

    Raises:
        EngineFileError: it is not such a file.
    """
    size = _metadata_bytes(blob)
    if size:
        try:
            metadata = json.loads(blob[4 : 4 + size])
        except (ValueError, RecursionError):
            metadata = None
        if isinstance(metadata, dict):
            return metadata, blob[4 + size :]
    raise EngineFileError(
        "an engine with Ultralytics metadata",
        got=f"{len(blob)} bytes that do not begin with a length and JSON",
        fix="Export it again.",
    )


def loading_problem(
    header: PlanHeader, *, library: str, library_version: str, compute_capability: str
) -> str:
    """Why a plan cannot load with a library on a GPU, in words; empty when it may.

    Args:
        header: of the plan.
        library: ``tensorrt`` or ``tensorrt_rtx``.
        library_version: like ``11.4.0.106``.
        compute_capability: the GPU's SM number, like ``86``.
    """
    if header.library != library:
        return f"it is {header}, which {library} does not load"
    if header.missing_bytes:
        return f"it is cut off: the last {header.missing_bytes} bytes are missing"
    sms = header.compute_capabilities
    if sms and compute_capability not in sms:
        return f"it was built for {', '.join('SM' + s for s in sms)}, not SM{compute_capability}"
    return version_problem(header.version, library_version)


def version_problem(built: str, loading: str) -> str:
    """Why a plan by version ``built`` cannot load in version ``loading``; empty when it may.

    Another major version or an older library never loads it. A newer library of the same major
    version loads plans that were built version compatible, which the header does not tell.
    """
    builder, loader = _numbers(built), _numbers(loading)
    if not builder or not loader:
        return ""
    if builder[0] != loader[0]:
        return f"it was built by version {built}; {loading} is of another major version"
    if builder[:3] > loader[:3]:
        return f"it was built by version {built}, which is newer than {loading}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(map(int, parts)) if all(p.isdecimal() for p in parts) else ()


def _describe_rtx(plan: bytes) -> PlanHeader:
    if len(plan) < _RTX_HEADER_BYTES:
        return PlanHeader(TENSORRT_RTX, missing_bytes=_RTX_HEADER_BYTES - len(plan))
    (size,) = struct.unpack_from("<Q", plan, 16)
    (mask,) = struct.unpack_from("<I", plan, 32)
    known = plan[28:32] == b"vtrt" and mask < 1 << len(_RTX_SMS)
    sms = tuple(sm for bit, sm in enumerate(_RTX_SMS) if mask >> bit & 1) if known else ()
    return PlanHeader(TENSORRT_RTX, _version(plan), sms, max(size - len(plan), 0))


def _describe_tensorrt(plan: bytes) -> PlanHeader:
    if len(plan) < _TRT_HEADER_BYTES:
        return PlanHeader(TENSORRT, missing_bytes=_TRT_HEADER_BYTES - len(plan))
    return PlanHeader(TENSORRT, _version(plan) if 7 <= plan[24] < 32 else "")


def _version(plan: bytes) -> str:
    return ".".join(str(byte) for byte in plan[24:28])


def _metadata_bytes(blob: bytes) -> int:
    """Size of the JSON that an Ultralytics engine begins with; 0 when it is something else."""
    if len(blob) < 6:
        return 0
    (size,) = struct.unpack_from("<I", blob)
    fits = 2 <= size <= min(_MAX_METADATA_BYTES, len(blob) - 4)
    return size if fits and blob[4:5] == b"{" and blob[3 + size : 4 + size] == b"}" else 0
