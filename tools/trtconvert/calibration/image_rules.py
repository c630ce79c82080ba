"""Rules on images alone, whatever the model.

1. ``unreadable``: a file that cannot be decoded.
2. ``too-few``: fewer than ``ENOUGH`` images. Of n images and one more, each is equally likely to
   hold a tensor's largest value, so the next image leaves the range with probability 1 / (n + 1):
   3 % at 32.
3. ``near-duplicates``: at least ``REDUNDANT`` of the images correlate with an earlier one by
   ``SAME`` or more: the set is smaller than it looks. A brighter, noisier or re-encoded copy does,
   and so does one with 2 % of its border cut off.
4. ``one-scene``: ``ALIKE`` or more correlation in at least half of all pairs, as frames of a fixed
   camera have. In a set of unlike photos it is 1 %.
5. ``dark``: in at least ``EXPOSED`` of the images nine tenths of the area are below ``DARK``.
6. ``blown-out``: in as many, three quarters of the area are near white, or nine tenths bright.
7. ``overlap``: verification images that are also calibration images.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtconvert.calibration.findings import Finding, named
from trtconvert.calibration.thumbnails import Thumbnails

ENOUGH = 32
SAME = 0.95
REDUNDANT = 0.02
ALIKE = 0.7
ONE_SCENE = 0.5
EXPOSED = 0.25
DARK, BRIGHT, WHITE = 64, 200, 250
# Fewer images have no share worth the name.
_LEAST_SET = 8


def image_findings(thumbnails: Thumbnails) -> list[Finding]:
    """What rules 1 to 6 say of a set."""
    found = [
        *_unreadable(thumbnails),
        *_too_few(thumbnails),
    ]
    if len(thumbnails):
        likeness = thumbnails.likeness()
        found += _near_duplicates(thumbnails.files, likeness)
        found += _one_scene(likeness)
        found += _exposure(thumbnails)
    return found


def overlap(calibration: Thumbnails, images: Thumbnails) -> list[Finding]:
    """Rule 7."""
    if not len(calibration) or not len(images):
        return []
    both = Thumbnails(
        (*calibration.files, *images.files),
        np.concatenate([calibration.pixels, images.pixels]),
        {},
    )
    nearest = both.likeness()[len(calibration) :, : len(calibration)].max(axis=1)
    shared = _at(images.files, nearest >= SAME)
    if len(shared) < REDUNDANT * len(images):
        return []
    text = (
        f"{len(shared)} of {len(images)} verification images are also calibration images "
        f"({named(shared)}): verify on others"
    )
    return [Finding("overlap", text, shared)]


def duplicate_groups(
    files: Sequence[Path], likeness: NDArray[np.float64]
) -> list[tuple[Path, ...]]:
    """Groups of two or more near-duplicates; each joins the first image that it is like."""
    groups: dict[int, list[int]] = {}
    for i in range(len(files)):
        first = next((k for k in groups if likeness[i, k] >= SAME), i)
        groups.setdefault(first, []).append(i)
    return [tuple(files[i] for i in group) for group in groups.values() if len(group) > 1]


def _unreadable(thumbnails: Thumbnails) -> list[Finding]:
    bad = thumbnails.unreadable
    if not bad:
        return []
    first = next(iter(bad))
    text = f"{len(bad)} files cannot be read, {first.name} first: {bad[first]}"
    return [Finding("unreadable", text, tuple(bad))]


def _too_few(thumbnails: Thumbnails) -> list[Finding]:
    count = len(thumbnails)
    if count >= ENOUGH:
        return []
    text = (
        f"{count} calibration images are few: a new image leaves the range of a tensor with "
        f"probability {1 / (count + 1):.0%}; give {ENOUGH} or more"
    )
    return [Finding("too-few", text)]


def _near_duplicates(files: Sequence[Path], likeness: NDArray[np.float64]) -> list[Finding]:
    groups = duplicate_groups(files, likeness)
    redundant = sum(len(group) - 1 for group in groups)
    if redundant < max(1, REDUNDANT * len(files)):
        return []
    pairs = "; ".join(" = ".join(path.name for path in group[:3]) for group in groups[:3])
    more = "; …" if len(groups) > 3 or any(len(group) > 3 for group in groups) else ""
    text = f"{redundant} of {len(files)} images nearly repeat another ({pairs}{more}): replace them"
    return [Finding("near-duplicates", text, tuple(path for group in groups for path in group))]


def _one_scene(likeness: NDArray[np.float64]) -> list[Finding]:
    if len(likeness) < _LEAST_SET:
        return []
    pairs = likeness[np.triu_indices(len(likeness), 1)]
    share = float((pairs >= ALIKE).mean())
    if share < ONE_SCENE:
        return []
    text = (
        f"the images show one scene: {share:.0%} of all pairs look alike; add other places, "
        "times of day and subjects"
    )
    return [Finding("one-scene", text)]


def _exposure(thumbnails: Thumbnails) -> list[Finding]:
    luma = thumbnails.luma
    white = (thumbnails.pixels.min(axis=3) >= WHITE).reshape(len(thumbnails), -1)
    is_dark = np.percentile(luma, 90, axis=1) < DARK
    is_blown = (white.mean(axis=1) >= 0.75) | (np.percentile(luma, 10, axis=1) >= BRIGHT)
    found = []
    for code, which, text in (("dark", is_dark, "dark"), ("blown-out", is_blown, "blown out")):
        files = _at(thumbnails.files, which)
        if len(files) >= EXPOSED * len(thumbnails):
            message = (
                f"{len(files)} of {len(thumbnails)} images are {text} ({named(files)}): ranges "
                "will not fit normally lit ones"
            )
            found.append(Finding(code, message, files))
    return found


def _at(files: Sequence[Path], which: NDArray[np.bool_]) -> tuple[Path, ...]:
    return tuple(itertools.compress(files, which.tolist()))
