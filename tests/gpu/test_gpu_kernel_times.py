"""The native operations take no more than a generous multiple of what their bytes cost."""

from __future__ import annotations

import pytest

import gpu_kernels
from visionrt import device

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def test_operations_are_near_their_floor(gpu: device.Device) -> None:
    """At most 10 µs per launch, 10 µs per step of NMS, and ten times the bytes' own time."""
    results = gpu_kernels.measure(gpu, gpu_kernels.memory_bytes_per_s())
    for result in results:
        print("{name}: {measured_us:.1f} µs, floor {floor_us:.1f} µs".format(**result))
    over = [r["name"] for r in results if r["measured_us"] > r["limit_us"]]
    assert not over
