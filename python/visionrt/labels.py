"""Class names: built-in label sets, or a text file with one name per line.

Where the names come from: ImageNet's synsets (ILSVRC 2012); COCO's categories and person keypoints;
Pascal VOC's 20 classes; ADE20K's 150 classes of its 2016 scene-parsing challenge, first synonyms;
Cityscapes' 19 training ids; DOTA 1.0's 15 categories in the order of Ultralytics' data file. Open
Images has several sets of names: they are given by a file.
"""

from __future__ import annotations

from pathlib import Path

from visionrt.errors import UsageError

_FOLDER = Path(__file__).parent / "label_sets"
_ALIASES = {
    "imagenet": "imagenet1000",
    "coco": "coco80",
    "voc": "voc20",
    "ade20k": "ade20k150",
    "cityscapes": "cityscapes19",
    "dota": "dota15",
}
# A set with a background before the names of another.
_WITH_BACKGROUND = {"imagenet1001": "imagenet1000", "voc21": "voc20"}
# The other way round.
_WITHOUT_BACKGROUND = {"coco90": "coco91"}
LABEL_SETS = (
    "imagenet1000",
    "imagenet1001",
    "coco80",
    "coco90",
    "coco91",
    "voc20",
    "voc21",
    "ade20k150",
    "cityscapes19",
    "dota15",
    "coco17_keypoints",
)


def read_labels(name_or_file: str) -> tuple[str, ...]:
    """Class names by class id.

    Args:
        name_or_file: one of ``LABEL_SETS``, or its name without the number (``imagenet``, ``coco``
            for ``coco80``, ``voc``, ``ade20k``, ``cityscapes``, ``dota``); ``coco91`` has the 91
            sparse ids of COCO with the background at 0, ``coco90`` those without it,
            ``imagenet1001`` and ``voc21`` a background before the others. Or the path of a UTF-8
            text file with one name per line, the first of which is class 0.

    Raises:
        UsageError: neither a known set nor a readable text file.
    """
    name = _ALIASES.get(name_or_file, name_or_file)
    if name in _WITH_BACKGROUND:
        return ("background", *read_labels(_WITH_BACKGROUND[name]))
    if name in _WITHOUT_BACKGROUND:
        return read_labels(_WITHOUT_BACKGROUND[name])[1:]
    path = _FOLDER / f"{name}.txt" if name in LABEL_SETS else Path(name_or_file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"labels: {' | '.join(LABEL_SETS)}, or a UTF-8 text file",
            got=f"{name_or_file!r} ({getattr(error, 'strerror', None) or error})",
            fix="Name a built-in set, or give a file with one class name per line.",
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)
