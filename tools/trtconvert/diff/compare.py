"""Compares two engines on images: figures by class, flips, and the images that differ the most."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtconvert.calibration.reader import image_files
from trtconvert.diff.boxes import BoxDiff
from trtconvert.diff.change import Change, ResultDiff, Row, WorstImages
from trtconvert.diff.classes import TopOneDiff
from trtconvert.diff.pictures import save_side_by_side
from trtconvert.diff.pixels import PixelDiff
from trtconvert.diff.points import KeypointDiff
from trtconvert.diff.sides import Source, open_sources
from trtconvert.pair import Pair, discounted
from trtconvert.progress import Progress, silent
from trtconvert.verify import MaxDrop, enforce
from visionrt.atomic import write_bytes
from visionrt.errors import InputDataError
from visionrt.metrics import Agreement, accumulator_for

REPORT = "report.json"
WORST = 8


@dataclass(frozen=True)
class DiffOptions:
    """What ``trtconvert diff`` takes.

    Attributes:
        a: the reference: an engine file, or an ONNX model.
        b: the candidate: likewise; one of the two must be an engine file.
        data: folder of images, subfolders included.
        confidence: score threshold of both; each its recipe's where it is None.
        worst: most images to list.
        output: folder for the report and pictures of the worst images; None writes nothing.
        typed: compare typed graphs in place of CPU twins.
        max_drop: that the caller will enforce; a limit for a metric that the task does not have is
            refused before any work.
    """

    a: Path
    b: Path
    data: Path
    confidence: float | None = None
    worst: int = WORST
    output: Path | None = None
    typed: bool = False
    max_drop: MaxDrop | None = None


@dataclass(frozen=True)
class WorstImage:
    """An image whose answers differ: its file, how, and the picture of it, if one was written."""

    image: str
    reason: str
    picture: str | None = None


@dataclass(frozen=True)
class DiffReport:
    """What differs.

    Attributes:
        a, b: the files; ``a_graph`` and ``b_graph`` say what of them ran.
        task: of both.
        agreement: of B with A, by the task's metric; where only B gives NaN, there is none.
        classes: a row per class or keypoint; the keys depend on the task, see
            :mod:`trtconvert.diff.boxes` and its neighbours.
        flips: ``from_id``, ``from``, ``to_id``, ``to`` and ``count``, the most frequent first.
        worst: the images that differ the most, worst first.
        warnings: sentences for people.
    """

    a: str
    b: str
    a_graph: str
    b_graph: str
    task: str
    agreement: Agreement
    classes: Sequence[Row]
    flips: Sequence[Row]
    worst: Sequence[WorstImage]
    warnings: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # Raw outputs are not compared: the two may name theirs differently.
        agreement = self.agreement.to_json()
        fields["agreement"] = {k: v for k, v in agreement.items() if k != "cosine"}
        fields["worst"] = [vars(image) for image in self.worst]
        return fields | {name: list(fields[name]) for name in ("classes", "flips", "warnings")}


def diff(options: DiffOptions, progress: Progress = silent) -> DiffReport:
    """Run both sides on every image and compare their answers; blocks.

    One image is in memory at a time; of each only a few numbers per answer are kept. The worst
    images are run once more to draw them.

    Raises:
        UsageError: two models, different tasks, a bad threshold, or a limit for another metric.
        EngineFileError: a damaged file, or one without the graph that is asked for.
        ModelError: a graph does not run, or does not fit its recipe.
        InputDataError: no image can be read, or the output cannot be written.
    """
    images = image_files(options.data)
    sources = open_sources(options.a, options.b, typed=options.typed)
    task = sources[0].recipe.task
    accumulator, table, worst = accumulator_for(task), _table_for(task), WorstImages(options.worst)
    if options.max_drop is not None:
        enforce(Agreement(accumulator.metric, len(images), 1.0), options.max_drop)
    if options.output is not None:
        _make_folder(options.output)
    sides = [lambda source=source: source.open(options.confidence) for source in sources]
    broken = 0
    with Pair(*sides) as pair:
        for compared in pair.compare(images, "Comparing", progress):
            accumulator.update(*compared.results)
            change = table.update(*compared.results)
            if compared.is_broken:
                broken += 1
                change = Change(math.inf, change.shift, f"NaN or infinity in B; {change.reason}")
            worst.add(compared.path, change)
        skipped = tuple(pair.skipped)
        listed = worst.listed()
        pictures = _draw(pair, sources, [path for path, _ in listed], options.output, progress)
    report = DiffReport(
        a=str(options.a),
        b=str(options.b),
        a_graph=sources[0].what,
        b_graph=sources[1].what,
        task=task,
        agreement=discounted(accumulator.agreement(), broken),
        classes=table.classes(),
        flips=table.flips(),
        worst=[WorstImage(str(path), reason, pictures.get(path)) for path, reason in listed],
        warnings=[*skipped, *_warnings(sources, broken)],
    )
    if options.output is not None:
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_bytes(options.output / REPORT, text.encode())
    return report


def _table_for(task: str) -> ResultDiff:
    made: dict[str, type[Any]] = {
        "classify": TopOneDiff,
        "detect": BoxDiff,
        "segment": PixelDiff,
        "keypoints": KeypointDiff,
        "instances": BoxDiff,
        "obb": BoxDiff,
    }
    table: ResultDiff = made[task]()
    return table


def _draw(
    pair: Pair,
    sources: tuple[Source, Source],
    images: Sequence[Path],
    folder: Path | None,
    progress: Progress,
) -> dict[Path, str]:
    """Write a picture of each image; names by image, relative to the folder."""
    if folder is None or not images:
        return {}
    titles = [f"{side}: {s.path.name}, {s.what}" for side, s in zip("AB", sources, strict=True)]
    names: dict[Path, str] = {}
    for compared in pair.compare(images, "Drawing", progress):
        name = f"{len(names) + 1:02d}-{compared.path.stem}.jpg"
        save_side_by_side(folder / name, compared.path, compared.results, titles)
        names[compared.path] = name
    return names


def _warnings(sources: tuple[Source, Source], broken: int) -> list[str]:
    a, b = (source.recipe for source in sources)
    out = [f"B gives NaN or infinity on {broken} images where A gives numbers"] if broken else []
    if a.labels != b.labels:
        out.append("the two name their classes differently; classes were compared by their ids")
    if a.preprocess != b.preprocess:
        out.append("the two preprocess images differently")
    return out


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputDataError(
            f"a folder for the report at {path}",
            got=error.strerror or str(error),
            fix="Choose another with -o.",
        ) from error
