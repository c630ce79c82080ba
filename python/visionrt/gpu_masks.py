"""Instance masks whose prototypes stay in GPU memory, and which are made there when asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.device import cuda_errors
from visionrt.gpu_result_pool import KeptMemory

_BYTES_AT_ONCE = 64 << 20  # of masks on their way to the host
_ALIGNMENT = 256


@dataclass(frozen=True, eq=False)
class DevicePrototypeMasks:
    """As :class:`visionrt.results.instances.PrototypeMasks`, with the same bits.

    Attributes:
        memory: of the batch's prototypes.
        address: of this image's, float32 [channels, h, w].
        shape: channels, h, w.
        coefficients: float32 [n, channels], on the host.
        scale, shift: (y, x); prototype pixel = image pixel * scale + shift.
        threshold: a pixel belongs to the mask when its sum is above this.
    """

    memory: KeptMemory
    address: int
    shape: tuple[int, int, int]
    coefficients: NDArray[np.float32]
    scale: tuple[float, float]
    shift: tuple[float, float]
    threshold: float

    def take(self, rows: Any) -> DevicePrototypeMasks:
        """See :class:`visionrt.results.instances.MaskSource`."""
        return replace(self, coefficients=np.ascontiguousarray(self.coefficients[rows]))

    def make(self, xyxy: NDArray[np.float32], image_hw: tuple[int, int]) -> NDArray[np.bool_]:
        """One launch for as many masks as 64 MB hold; blocks until they are on the host.

        Raises:
            MissingDependencyError: the GPU failed, or has too little memory.
        """
        count, area = len(self.coefficients), image_hw[0] * image_hw[1]
        masks = np.empty((count, *image_hw), np.uint8)
        step = max(1, _BYTES_AT_ONCE // max(area, 1))
        for start in range(0, count, step):
            part = slice(start, start + step)
            self._make(self.coefficients[part], xyxy[part], masks[part])
        return masks.view(np.bool_)

    def _make(
        self, coefficients: NDArray[np.float32], xyxy: NDArray[np.float32], out: NDArray[np.uint8]
    ) -> None:
        # Boxes, then coefficients: what goes up. Then the masks, which come down.
        up = xyxy.nbytes + coefficients.nbytes
        first = -(-up // _ALIGNMENT) * _ALIGNMENT
        with self.memory.reading() as pool:
            staged = pool.pinned.array((first + out.nbytes,), np.uint8)
            staged[: xyxy.nbytes] = np.ascontiguousarray(xyxy).view(np.uint8).ravel()
            staged[xyxy.nbytes : up] = np.ascontiguousarray(coefficients).view(np.uint8).ravel()
            address = pool.scratch.reserve(staged.nbytes)
            pool.device.copy_to_device(address, staged[:up], pool.stream)
            with cuda_errors("make masks"):
                _core.cuda_instance_masks(
                    prototypes=self.address,
                    shape=self.shape,
                    coefficients=address + xyxy.nbytes,
                    boxes=address,
                    count=0,
                    detections=len(coefficients),
                    size=out.shape[1:],
                    scale=self.scale,
                    shift=self.shift,
                    masks=address + first,
                    stream=pool.stream.handle,
                    threshold=self.threshold,
                )
            pool.device.copy_to_host(staged[first:], address + first, pool.stream)
            pool.stream.synchronize()
            out[...] = staged[first:].reshape(out.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process, or a copy, gets the prototypes themselves.
        from visionrt.results.instances import PrototypeMasks

        with self.memory.reading() as pool:
            staged = pool.pinned.array(self.shape, np.float32)
            pool.device.copy_to_host(staged, self.address, pool.stream)
            pool.stream.synchronize()
            prototypes = staged.copy()
        values = (prototypes, self.coefficients, self.scale, self.shift, self.threshold)
        return (PrototypeMasks, values)
