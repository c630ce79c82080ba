"""Built-in label sets and label files."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionrt.errors import UsageError
from visionrt.labels import read_labels


@pytest.mark.parametrize(
    ("name", "count", "class_id", "label"),
    [
        ("imagenet", 1000, 967, "espresso"),
        ("imagenet1000", 1000, 0, "tench, Tinca tinca"),
        ("coco", 80, 0, "person"),
        ("coco80", 80, 79, "toothbrush"),
        ("coco91", 91, 1, "person"),
        ("coco90", 90, 0, "person"),
        ("coco90", 90, 89, "toothbrush"),
        ("imagenet1001", 1001, 1, "tench, Tinca tinca"),
        ("voc", 20, 19, "tvmonitor"),
        ("voc21", 21, 0, "background"),
        ("voc21", 21, 15, "person"),
        ("ade20k", 150, 149, "flag"),
        ("ade20k", 150, 76, "boat"),
        ("cityscapes", 19, 10, "sky"),
        ("dota", 15, 9, "large vehicle"),
        ("coco17_keypoints", 17, 16, "right ankle"),
    ],
)
def test_built_in_sets(name: str, count: int, class_id: int, label: str) -> None:
    labels = read_labels(name)
    assert len(labels) == count
    assert labels[class_id] == label
    assert all(labels)
    # ImageNet has two cranes and two maillots; COCO's sparse ids have unnamed ones.
    assert len(set(labels)) == count or name.startswith(("imagenet", "coco9"))


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("chat\r\n chien \n\n", encoding="utf-8")
    assert read_labels(str(path)) == ("chat", "chien")


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"\xff\xfe\xe9")
    for name in ("imagenet21k", str(tmp_path / "latin1.txt"), str(tmp_path)):
        with pytest.raises(UsageError, match="labels"):
            read_labels(name)
