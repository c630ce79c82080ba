"""Built-in label sets and label files."""

from __future__ import annotations

import hashlib
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


# Of the lists as they were compared, name by name, with torchvision's, timm's, MMSegmentation's,
# MMDetection's, Ultralytics' and cityscapesScripts': whoever changes one compares it again.
COMPARED = {
    "ade20k150": "f9dbd8a75a0722c9",
    "cityscapes19": "5995d02d6c574d51",
    "coco17_keypoints": "2880b4b17fa9db82",
    "coco80": "d7654b2610157284",
    "coco91": "3a595876df95a1f5",
    "dota15": "53074bcc58e4cf84",
    "imagenet1000": "a40d9be82eb4738b",
    "voc20": "7d877f185c807bc5",
}


@pytest.mark.parametrize("name", COMPARED)
def test_the_sets_are_those_that_were_compared_with_other_libraries(name: str) -> None:
    digest = hashlib.sha256("\n".join(read_labels(name)).encode()).hexdigest()
    assert digest.startswith(COMPARED[name])


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("chat\r\n chien \n\n", encoding="utf-8")
    assert read_labels(str(path)) == ("chat", "chien")


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"\xff\xfe\xe9")
    for name in ("imagenet21k", str(tmp_path / "latin1.txt"), str(tmp_path)):
        with pytest.raises(UsageError, match="labels"):
            read_labels(name)
