"""What decoding JPEGs at a scale does to answers: ``jpeg_accuracy.py``; prints a line per model.

The photos of ``tests/data/images/labelled`` become JPEGs of quality 95; those that are large enough
to be scaled for a model are run with ``decode="exact"`` and ``decode="scaled"``, and compared.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image

from precision_subjects import FLAGS, read_subject
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.metrics import compare
from visionrt.model import Model
from visionrt.preprocess import Preprocessor
from visionrt.results import Classification, Result

IMAGES = Path(__file__).resolve().parents[1] / "tests" / "data" / "images"


def as_jpeg(path: Path) -> bytes:
    """A photo as a JPEG of quality 95."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def accepted_labels() -> dict[str, set[int]]:
    """The class ids that are right for each photo."""
    with (IMAGES / "labels.csv").open(newline="") as stream:
        return {
            row["file"]: {int(word) for word in row["accepted_class_ids"].split()}
            for row in csv.DictReader(stream)
        }


def right(results: list[Result], names: list[str]) -> str:
    """How many photos a classifier names rightly; empty for other tasks."""
    accepted = accepted_labels()
    found = [
        int(result.class_id[0]) in accepted[name]
        for result, name in zip(results, names, strict=True)
        if isinstance(result, Classification)
    ]
    return f"{sum(found)} of {len(found)} right" if found else ""


def main() -> None:
    """Compare; print."""
    photos = sorted((IMAGES / "labelled").glob("*.webp"))
    jpegs = {path: as_jpeg(path) for path in photos}
    for name in FLAGS:
        subject = read_subject(name)
        divisor_for = Preprocessor(subject.recipe.preprocess).jpeg_divisor
        chosen = []
        for path in photos:
            with Image.open(path) as picture:
                width, height = picture.size
            if divisor_for(height, width) > 1:
                chosen.append(path)
        backend = OnnxRuntimeBackend(subject.original.SerializeToString())
        with (
            Model(subject.recipe, backend, decode="exact") as exact,
            Model(subject.recipe, backend, decode="scaled") as scaled,
        ):
            whole = [exact(jpegs[path]) for path in chosen]
            small = [scaled(jpegs[path]) for path in chosen]
        figures = compare(subject.recipe.task, whole, small).to_json()
        names = [path.name for path in chosen]
        counts = " → ".join(filter(None, (right(whole, names), right(small, names))))
        print(f"{name}: {len(chosen)} photos scaled; {figures} {counts}")


if __name__ == "__main__":
    main()
