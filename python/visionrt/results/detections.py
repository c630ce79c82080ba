"""The result of a detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import MissingDependencyError
from visionrt.results.base import Result, category_of, run_lengths

if TYPE_CHECKING:
    from visionrt.gpu_results import DeviceRows


class Detection(NamedTuple):
    """One row of :class:`Detections`, in the order in which ``supervision`` iterates."""

    xyxy: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    confidence: float
    class_id: int
    name: str


@dataclass(kw_only=True, eq=False, repr=False)
class Detections(Result):
    """Boxes, best first. Indexing by an array, a mask or a slice gives Detections again.

    Attributes:
        xyxy: float32 [n, 4], pixels of the original image, continuous: the image spans
            0…width and 0…height.
        confidence: float32 [n], 0…1.
        class_id: int32 [n].
        mask: bool [n, height, width], or None.
        data: more arrays with one row per box, by name.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]
    mask: NDArray[np.bool_] | None = None
    data: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def on_device(self) -> DeviceRows | None:
        """The boxes in GPU memory, where a call with ``keep_on_device`` left them; else None."""
        return None

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[Detection]:
        for i, (box, score, class_id) in enumerate(
            zip(self.xyxy, self.confidence.tolist(), self.class_id.tolist(), strict=True)
        ):
            mask = None if self.mask is None else self.mask[i]
            yield Detection(box, mask, score, class_id, self.label(class_id))

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> Detections:
        rows: Any = slice(index, index + 1 or None) if isinstance(index, int) else index
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"detection {index} of {len(self)}")
        return Detections(
            image_hw=self.image_hw,
            names=self.names,
            speed=self.speed,
            source=self.source,
            xyxy=self.xyxy[rows],
            confidence=self.confidence[rows],
            class_id=self.class_id[rows],
            mask=None if self.mask is None else self.mask[rows],
            data={k: v[rows] for k, v in self.data.items()},
        )

    def summary(self) -> str:
        """How many boxes of which class, the most frequent first."""
        counts = Counter(self.class_id.tolist()).most_common()
        return ", ".join(f"{n} {self.label(c)}" for c, n in counts) or "nothing found"

    def to_json(self) -> dict[str, Any]:
        """Adds ``detections``: ``{"xyxy", "class_id", "name", "confidence"}`` each.

        Masks are given as COCO run lengths under ``mask``.
        """
        rows = []
        for row in self:
            entry = {
                "xyxy": row.xyxy.tolist(),
                "class_id": row.class_id,
                "name": row.name,
                "confidence": row.confidence,
            }
            if row.mask is not None:
                entry["mask"] = run_lengths(row.mask)
            rows.append(entry)
        return self._json_head() | {"detections": rows}

    def rows(self) -> list[dict[str, Any]]:
        """One row per box: ``class_id, name, confidence, x0, y0, x1, y1``."""
        return [
            {
                "class_id": row.class_id,
                "name": row.name,
                "confidence": row.confidence,
                **dict(zip(("x0", "y0", "x1", "y1"), row.xyxy.tolist(), strict=True)),
            }
            for row in self
        ]

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One entry per box; ``bbox`` is x, y, width, height in pixels."""
        out = []
        for row in self:
            x0, y0, x1, y1 = row.xyxy.tolist()
            entry = {
                "image_id": image_id,
                "category_id": category_of(row.class_id, category_ids),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": row.confidence,
            }
            if row.mask is not None:
                entry["segmentation"] = run_lengths(row.mask)
            out.append(entry)
        return out

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``, with ``data["class_name"]``.

        Raises:
            MissingDependencyError: ``supervision`` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError(
                "the package supervision", got=str(error), fix="pip install supervision"
            ) from error
        class_names = np.array([self.label(c) for c in self.class_id.tolist()], dtype=np.str_)
        return supervision.Detections(
            xyxy=self.xyxy,
            mask=self.mask,
            confidence=self.confidence,
            class_id=self.class_id.astype(int),
            data={**self.data, "class_name": class_names},
        )

    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Boxes with name and confidence."""
        from visionrt import plot

        return plot.draw_boxes(canvas, self)
