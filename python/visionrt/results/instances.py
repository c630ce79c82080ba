"""The result of instance segmentation: boxes whose masks are made when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.results.detections import Detections

Mask = NDArray[np.bool_]


class MaskSource(Protocol):
    """What masks are made of, one row per box."""

    def take(self, rows: Any) -> MaskSource:
        """The rows that a NumPy index selects."""
        ...

    def make(self, xyxy: NDArray[np.float32], image_hw: tuple[int, int]) -> Mask:
        """Masks bool [n, height, width] of boxes in pixels of the image."""
        ...


@dataclass(frozen=True, eq=False)
class PrototypeMasks:
    """Coefficients times prototypes, as YOLACT (Bolya et al. 2019) and YOLO have them.

    Attributes:
        prototypes: float32 [channels, h, w], not written again by anyone.
        coefficients: float32 [n, channels].
        scale, shift: (y, x); prototype pixel = image pixel * scale + shift.
        threshold: a pixel belongs to the mask when its sum is above this.
    """

    prototypes: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    scale: tuple[float, float]
    shift: tuple[float, float]
    threshold: float = 0.0

    def take(self, rows: Any) -> PrototypeMasks:
        """See :class:`MaskSource`."""
        some = np.ascontiguousarray(self.coefficients[rows])
        return PrototypeMasks(self.prototypes, some, self.scale, self.shift, self.threshold)

    def make(self, xyxy: NDArray[np.float32], image_hw: tuple[int, int]) -> Mask:
        """Sums sampled bilinearly at the image's pixel centres, within each box."""
        masks = _core.instance_masks(
            self.prototypes,
            self.coefficients,
            np.ascontiguousarray(xyxy),
            image_hw,
            self.scale,
            self.shift,
            self.threshold,
        )
        return masks.view(np.bool_)


@dataclass(frozen=True, eq=False)
class PastedMasks:
    """A small mask per box, stretched over it, as Mask R-CNN (He et al. 2017) has them.

    Attributes:
        masks: float32 [n, h, w], probabilities.
        boxes: float32 [n, 4], in pixels of the image and not clipped to it: what a mask covers.
        threshold: a pixel belongs to the mask when its probability is above this.
    """

    masks: NDArray[np.float32]
    boxes: NDArray[np.float32]
    threshold: float = 0.5

    def take(self, rows: Any) -> PastedMasks:
        """See :class:`MaskSource`."""
        return PastedMasks(self.masks[rows], self.boxes[rows], self.threshold)

    def make(self, xyxy: NDArray[np.float32], image_hw: tuple[int, int]) -> Mask:
        """Probabilities sampled bilinearly at the image's pixel centres, within each box."""
        out = np.zeros((len(self.masks), *image_hw), np.bool_)
        side_h, side_w = self.masks.shape[1:]
        one = np.ones((1, 1), np.float32)
        for i, (mask, whole, seen) in enumerate(zip(self.masks, self.boxes, xyxy, strict=True)):
            width, height = (whole[2:] - whole[:2]).tolist()
            if not (width > 0 and height > 0):
                continue
            # One prototype, of which the box is the window: the same sampling, and the same bits.
            scale = (side_h / height, side_w / width)
            shift = (-float(whole[1]) * scale[0], -float(whole[0]) * scale[1])
            prototype = np.ascontiguousarray(mask[None])
            out[i] = _core.instance_masks(
                prototype, one, seen[None].copy(), image_hw, scale, shift, self.threshold
            )[0].view(np.bool_)
        return out


class Instances(Detections):
    """Boxes with a mask each. Fields as :class:`Detections`, but ``mask`` is made on first use.

    Attributes:
        mask: bool [n, height, width] at the image's size; n * height * width bytes once made.

    Args:
        source_of_masks: what they are made of; let go of once they are made.
        fields: of :class:`Detections`, without ``mask``.
    """

    def __init__(self, source_of_masks: MaskSource, **fields: Any) -> None:
        self._made: Mask | None = None
        self._source: MaskSource | None = source_of_masks
        super().__init__(**fields)

    @property
    def mask(self) -> Mask | None:
        """See the class."""
        if self._made is None and self._source is not None:
            self._made = self._source.make(self.xyxy, self.image_hw)
            self._source = None
        return self._made

    @mask.setter
    def mask(self, value: Mask | None) -> None:
        # The base class's __init__ assigns its default; that is no mask.
        if value is not None:
            self._made, self._source = value, None

    def __getitem__(self, index: Any) -> Detections:
        """Some of the rows; masks that are not made yet stay so."""
        if self._source is None:
            return super().__getitem__(index)
        rows: Any = slice(index, index + 1 or None) if isinstance(index, int) else index
        source, self._source = self._source, None
        try:
            some = super().__getitem__(index)
        finally:
            self._source = source
        return Instances(
            source.take(rows),
            image_hw=some.image_hw,
            names=some.names,
            speed=some.speed,
            source=some.source,
            xyxy=some.xyxy,
            confidence=some.confidence,
            class_id=some.class_id,
            data=some.data,
        )
