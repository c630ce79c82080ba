"""Class names: built-in label sets, or a text file with one name per line."""

from __future__ import annotations

from pathlib import Path

from visionrt.errors import UsageError

_FOLDER = Path(__file__).parent / "label_sets"
_ALIASES = {"imagenet": "imagenet1000", "coco": "coco80"}
LABEL_SETS = ("imagenet1000", "coco80", "coco91")


def read_labels(name_or_file: str) -> tuple[str, ...]:
    """Class names by class id.

    Args:
        name_or_file: ``imagenet1000`` (or ``imagenet``), ``coco80`` (or ``coco``), ``coco91`` (the
            91 sparse ids of COCO with the background at 0), or the path of a UTF-8 text file with
            one name per line, the first of which is class 0.

    Raises:
        UsageError: neither a known set nor a readable text file.
    """
    name = _ALIASES.get(name_or_file, name_or_file)
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
