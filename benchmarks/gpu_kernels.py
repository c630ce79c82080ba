"""Times the native operations on a GPU against what their bytes cost: ``gpu_kernels.py [--json]``.

The *floor* of an operation is the time in which the memory moves its inputs and outputs once, which
no implementation can beat; ``make kernels`` has the bytes of each kernel. Small operations never
reach it, since a launch takes microseconds and NMS waits for one step after the other, so an
operation passes below ``LAUNCH_US`` per launch + ``STEP_US`` per step + ``FACTOR`` × floor.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.device import Device, DeviceBuffer, Stream, gpu_problem, open_device
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

LAUNCH_US = 10.0
STEP_US = 10.0
FACTOR = 10.0
NMS_CHUNK = 128  # candidates that the greedy walk takes in one step
_CLOCK_KHZ, _BUS_BITS = 36, 37  # CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, …GLOBAL_MEMORY_BUS_WIDTH
_EXIT_MISSING = 6


@dataclass(frozen=True)
class Operation:
    """Work that can be queued again and again.

    Attributes:
        name: what it is, with its sizes.
        bytes: of its inputs and outputs.
        launches: kernels, and fills, at most.
        steps: what it does one after the other inside a launch.
        enqueue: queues it on the stream with this handle.
    """

    name: str
    bytes: int
    launches: int
    steps: int
    enqueue: Callable[[int], None]

    def floor_us(self, bytes_per_s: float) -> float:
        """Time in which memory of this speed moves the bytes once."""
        return self.bytes / bytes_per_s * 1e6

    def limit_us(self, bytes_per_s: float) -> float:
        """What it may take; see the module."""
        waiting = self.launches * LAUNCH_US + self.steps * STEP_US
        return waiting + FACTOR * self.floor_us(bytes_per_s)


class Bench:
    """Memory and a stream for the operations. The context must be current while they run."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream: Stream = device.stream()
        self._pinned = device.pinned()
        self._held: list[DeviceBuffer] = []

    def upload(self, array: NDArray[np.generic]) -> int:
        """The device address of a copy."""
        staged = self._pinned.array(array.shape, array.dtype)
        np.copyto(staged, array)
        address = self.reserve(array.nbytes)
        self.device.copy_to_device(address, staged, self.stream)
        self.stream.synchronize()
        return address

    def reserve(self, size: int) -> int:
        """The device address of new memory."""
        self._held.append(self.device.buffer())
        return self._held[-1].reserve(size)

    def microseconds(self, operation: Operation, rounds: int) -> float:
        """Of one operation: the median of five series of ``rounds``, queued back to back."""
        start, end = self.device.event(), self.device.event()
        operation.enqueue(self.stream.handle)
        series = []
        for _ in range(5):
            start.record(self.stream)
            for _ in range(rounds):
                operation.enqueue(self.stream.handle)
            end.record(self.stream)
            end.synchronize()
            series.append(end.milliseconds_since(start) * 1e3 / rounds)
        start.close()
        end.close()
        return float(np.median(series))

    def close(self) -> None:
        """Free everything."""
        for owned in (*self._held, self._pinned, self.stream):
            owned.close()


def operations(bench: Bench) -> Iterator[Operation]:
    """Every operation at the sizes of common models."""
    rng = np.random.default_rng(0)
    yield _preprocess(bench, "letterbox, cv2", PreprocessSpec(), rng)
    yield _preprocess(bench, "crop, pil", PreprocessSpec.parse("imagenet"), rng)
    yield _decode(bench, "v8", 8400, rng)
    yield _decode(bench, "v5", 25200, rng)
    for candidates in (300, 1000, 8400, 30_000):
        yield _nms(bench, candidates, rng)


def _preprocess(
    bench: Bench, title: str, spec: PreprocessSpec, rng: np.random.Generator
) -> Operation:
    height, width = 1080, 1920
    image = bench.upload(rng.integers(0, 256, (height, width, 3), np.uint8))
    plan = Preprocessor(spec).plan
    out_bytes = int(np.prod(spec.tensor_shape(1))) * np.dtype(spec.dtype).itemsize
    out = bench.reserve(out_bytes)
    table = plan.cuda_table(height, width)
    tables = [bench.upload(table)] if table.size else []
    views = [(image, height, width, 3 * width)]

    def enqueue(stream: int) -> None:
        plan.run_cuda(views, out, tables, stream, "bgr")

    h, w = spec.size
    name = f"preprocess {height}×{width} to {h}×{w} ({title})"
    # The crop leaves some source pixels out; all are counted, as the limit is generous.
    return Operation(name, 3 * height * width + out_bytes, 1, 0, enqueue)


def _decode(bench: Bench, form: str, anchors: int, rng: np.random.Generator) -> Operation:
    classes, found = 80, 300
    columns = classes + (4 if form == "v8" else 5)
    rows = rng.uniform(0, 0.2, (anchors, columns)).astype(np.float32)
    rows[rng.choice(anchors, found, replace=False), 4:] = 0.9
    output = bench.upload(np.ascontiguousarray(rows.T) if form == "v8" else rows)
    sizes = (16, 4, 4, 4)
    candidates = [bench.reserve(size * anchors) for size in sizes] + [bench.reserve(4)]

    def enqueue(stream: int) -> None:
        _core.cuda_decode_yolo(
            output, 1, form, anchors, columns, classes, 0.5, candidates, anchors, stream
        )

    # A v5 anchor without an object is one value; a sector of 32 bytes is what that costs.
    read = rows.nbytes if form == "v8" else 32 * anchors + 4 * columns * found
    return Operation(f"decode YOLO {form} {anchors}×{columns}", read + 28 * found, 2, 0, enqueue)


def _nms(bench: Bench, count: int, rng: np.random.Generator) -> Operation:
    max_det = 300
    corner = rng.uniform(0, 600, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (count, 2))], 1)
    inputs = [
        bench.upload(boxes.astype(np.float32)),
        bench.upload(rng.uniform(0.25, 1, count).astype(np.float32)),
        bench.upload(rng.integers(0, 80, count).astype(np.int32)),
        bench.upload(np.arange(count, dtype=np.int32)),
        bench.upload(np.array([count], np.int32)),
    ]
    room_bytes = _core.cuda_nms_workspace_bytes(1, count, max_det)
    room, kept, kept_count = (bench.reserve(n) for n in (room_bytes, 4 * max_det, 4))

    def enqueue(stream: int) -> None:
        _core.cuda_nms(
            *inputs, 1, count, 0.5, max_det, room, room_bytes, kept, kept_count, stream
        )  # fmt: skip

    steps = -(-count // NMS_CHUNK)
    return Operation(f"NMS of {count} candidates", 28 * count + 4 * max_det, 4, steps, enqueue)


def memory_bytes_per_s(index: int = 0) -> float:
    """What the memory of a GPU moves at most: clock × bus width × 2 per clock.

    Raises:
        RuntimeError: the driver does not say.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    values = []
    for attribute in (_CLOCK_KHZ, _BUS_BITS):
        value = ctypes.c_int()
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        if status or value.value <= 0:
            raise RuntimeError(f"the driver does not tell device attribute {attribute}")
        values.append(value.value)
    clock_khz, bus_bits = values
    return clock_khz * 1e3 * 2 * bus_bits / 8


def measure(
    device: Device, bytes_per_s: float, rounds: int = 50
) -> list[dict[str, str | int | float]]:
    """One object per operation: its name, bytes, launches, and floor, limit and time in µs."""
    bench = Bench(device)
    with device.current():
        out: list[dict[str, str | int | float]] = [
            {
                "name": operation.name,
                "bytes": operation.bytes,
                "launches": operation.launches,
                "floor_us": operation.floor_us(bytes_per_s),
                "limit_us": operation.limit_us(bytes_per_s),
                "measured_us": bench.microseconds(operation, rounds),
            }
            for operation in operations(bench)
        ]
    bench.close()
    return out


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the native operations on a GPU.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    problem = gpu_problem(0)
    if problem:
        sys.stderr.write(f"expected an NVIDIA GPU, got: {problem}. Run visionrt doctor.\n")
        return _EXIT_MISSING
    device = open_device(0)
    bytes_per_s = memory_bytes_per_s()
    results = measure(device, bytes_per_s)
    if args.json:
        body = {"gpu": device.info.name, "bytes_per_s": bytes_per_s, "operations": results}
        print(json.dumps(body, indent=1))
        return 0
    print(f"{device.info.name}, {bytes_per_s / 1e9:.0f} GB/s")
    for result in results:
        print("{name:48} {measured_us:9.1f} µs, floor {floor_us:7.1f} µs".format(**result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
