"""The ``yolo`` head: one column (or row) per anchor with a box and class scores, already decoded.

Output, C classes and A anchors; boxes are cx, cy, w, h in tensor pixels:
    ``v8``       [n, 4 + C, A]   YOLOv8 to v12, as their exporters write it
    ``v8_rows``  [n, A, 4 + C]   the same, transposed
    ``v5``       [n, A, 5 + C]   YOLOv5 and v7, with an objectness score that multiplies

Head options:
    output: name of the output; needed when there are several.
    form: as above; default ``v8``.
    multi_label: whether one anchor may give several classes; default false.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.boxes import NO_LIMIT, CandidateHead, Candidates, class_count
from visionrt.heads.yolo_device import Layout, YoloOnDevice
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor


class YoloHead(CandidateHead, YoloOnDevice):
    """See the module. Decodes on the device as well."""

    reads_float16 = True

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "form", "multi_label"))
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._form = choice(recipe, "form", ("v8", "v8_rows", "v5"), "v8")
        self._multi_label = choice(recipe, "multi_label", (False, True), False)

    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[Candidates]:
        raw = as_float32(outputs[self._output])
        classes = self._layout_of(raw.shape, batch).classes
        for image in raw:
            yield _core.decode_yolo(
                image,
                self._form,
                classes,
                confidence,
                multi_label=self._multi_label,
                max_candidates=NO_LIMIT,
            )

    def _layout(self, outputs: Mapping[str, DeviceTensor]) -> Layout:
        return self._layout_of(outputs[self._output].shape)

    def _layout_of(self, shape: tuple[int, ...], batch: int | None = None) -> Layout:
        box_columns = 5 if self._form == "v5" else 4
        columns = shape[1 if self._form == "v8" else 2] if len(shape) == 3 else 0
        if columns <= box_columns or batch not in (None, shape[0]):
            wanted = f"{box_columns} + classes"
            wanted = f"[n, {wanted}, anchors]" if self._form == "v8" else f"[n, anchors, {wanted}]"
            raise bad_shape(self._output, wanted, shape)
        anchors = shape[2 if self._form == "v8" else 1]
        classes = class_count(columns, box_columns, self._recipe)
        return Layout(anchors, columns, classes, columns - box_columns - classes)
