"""The device half of the YOLO heads: where things lie in the output, and one launch.

See :class:`visionrt.gpu_boxes.DeviceBoxHead`. A head says how its output is laid out, and what it
makes of the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from visionrt import _core
from visionrt.heads.yolo_columns import columns_of

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_boxes import Columns
    from visionrt.gpu_layout import CandidateBuffers


@dataclass(frozen=True)
class Layout:
    """Of an output in a form of :mod:`visionrt.heads.yolo_columns`, but for ``end2end``.

    Attributes:
        anchors, columns: sizes of its axes.
        classes: how many scores there are.
        extra: columns behind them.
    """

    anchors: int
    columns: int
    classes: int
    extra: int


class YoloOnDevice(ABC):
    """What the heads inherit. They decode on the device unless the model suppresses by itself.

    One with ``kept_output`` and ``result`` is a :class:`visionrt.gpu_boxes.DeviceColumnsHead`.
    """

    constant = None
    reads_float16 = False  # further columns are read as float32 where they lie

    _multi_label = False
    _form: str
    _output: str  # name of the output with the boxes

    @property
    def decodes_on_device(self) -> bool:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        return self._form != "end2end"

    def capacity(self, outputs: Mapping[str, DeviceTensor]) -> int:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        layout = self._layout(outputs)
        return _core.decode_capacity(layout.anchors, layout.classes, self._multi_label)

    def enqueue_decode(
        self,
        outputs: Mapping[str, DeviceTensor],
        batch: int,
        confidence: float,
        candidates: CandidateBuffers,
        constant: int,
        stream: int,
    ) -> None:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        layout, output = self._layout(outputs), outputs[self._output]
        _core.cuda_decode_yolo(
            output.address,
            batch,
            self._form,
            layout.anchors,
            layout.columns,
            layout.classes,
            confidence,
            candidates.addresses(),
            candidates.capacity,
            stream,
            multi_label=self._multi_label,
            is_float16=output.dtype == np.float16,
        )

    def columns(self, outputs: Mapping[str, DeviceTensor]) -> Columns:
        """See :class:`visionrt.gpu_boxes.DeviceColumnsHead`."""
        from visionrt.gpu_boxes import Columns

        layout, output = self._layout(outputs), outputs[self._output]
        by_columns = self._form == "v8"
        step = layout.anchors if by_columns else 1
        first = layout.columns - layout.extra
        return Columns(
            address=output.address + first * step * output.dtype.itemsize,
            image_stride=layout.anchors * layout.columns,
            anchor_stride=1 if by_columns else layout.columns,
            column_stride=step,
            classes=layout.classes,
            columns=layout.extra,
        )

    @abstractmethod
    def _layout(self, outputs: Mapping[str, DeviceTensor]) -> Layout:
        """Of the output with the boxes, checked.

        Raises:
            ModelError: it has another shape than the head's.
        """

    def _layout_with(
        self, shape: tuple[int, ...], *, classes: int | None = None, extra: int | None = None
    ) -> Layout:
        """Of an output of a shape, from the number of classes or of further columns."""
        least = (1 if classes is None else classes) + (1 if extra is None else extra)
        batch = shape[0] if shape else 0
        behind = columns_of(self._form, self._output, shape, batch, least)
        axis = 1 if self._form == "v8" else 2
        if classes is None:
            classes = behind - (extra or 0)
        return Layout(shape[3 - axis], shape[axis], classes, behind - classes)
