"""What is wrong with a set of images: each planted fault is found; and a subset that covers it."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from trtconvert.calibration.image_rules import ENOUGH, image_findings, overlap
from trtconvert.calibration.subset import covering_subset, farthest_points
from trtconvert.calibration.thumbnails import thumbnails_of
from visionrt.errors import InputDataError


def scene(seed, side=48):
    """A smooth random picture, float in 40…215."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    return 40 + pixels / 255 * 175


def write(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(pictures):
        clipped = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        Image.fromarray(clipped).save(folder / f"{index:03}.png")
    return folder


def codes_of(folder):
    return {f.code: f for f in image_findings(thumbnails_of(sorted(folder.iterdir())))}


# Rules on images


def test_unlike_pictures_are_not_blamed(tmp_path):
    assert codes_of(write(tmp_path, [scene(i) for i in range(40)])) == {}


@pytest.mark.parametrize("folder", ["labelled", "calib"])
def test_real_photos_are_not_blamed(images, folder):
    assert codes_of(images / folder) == {}


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer), np.float64)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p,
        lambda p: p * 0.7 + 20,
        lambda p: p + np.random.default_rng(0).normal(0, 12, p.shape),
        lambda p: p[1:-1, 1:-1],
        jpeg,
    ],
    ids=["same", "darker", "noisy", "cropped", "jpeg"],
)
def test_near_duplicates_are_named(tmp_path, change):
    scenes = [scene(i) for i in range(40)]
    found = codes_of(write(tmp_path, [*scenes, change(scenes[7])]))
    assert set(found) == {"near-duplicates"}
    assert [f.name for f in found["near-duplicates"].files] == ["007.png", "040.png"]
    assert "007.png = 040.png" in found["near-duplicates"].message


def test_two_plain_pictures_are_duplicates_and_a_plain_one_is_like_no_other(tmp_path):
    scenes = [scene(i) for i in range(32)]
    plain = np.full((8, 8, 3), 128.0)
    assert codes_of(write(tmp_path / "one", [*scenes, plain])) == {}
    assert "near-duplicates" in codes_of(write(tmp_path / "two", [*scenes, plain, plain]))


def test_frames_of_one_camera_are_one_scene(tmp_path):
    background = scene(0)
    frames = [background + 0.5 * (scene(i) - 128) for i in range(1, 41)]
    assert "one-scene" in codes_of(write(tmp_path, frames))


def test_dark_and_blown_out_sets(tmp_path):
    scenes = [scene(i) for i in range(40)]
    night = [p / 6 for p in scenes[:10]]
    found = codes_of(write(tmp_path / "night", [*night, *scenes[10:]]))
    assert set(found) == {"dark"}
    assert [f.name for f in found["dark"].files] == [f"{i:03}.png" for i in range(10)]
    glare = [p + 190 for p in scenes[:10]]
    assert set(codes_of(write(tmp_path / "glare", [*glare, *scenes[10:]]))) == {"blown-out"}
    # A few are what real light gives.
    assert codes_of(write(tmp_path / "few", [*night[:9], *scenes[9:]])) == {}


def test_too_few(tmp_path):
    scenes = [scene(i) for i in range(ENOUGH)]
    assert codes_of(write(tmp_path / "enough", scenes)) == {}
    found = codes_of(write(tmp_path / "few", scenes[1:]))
    assert set(found) == {"too-few"}
    assert "3%" in found["too-few"].message


def test_unreadable_files_are_named(tmp_path):
    folder = write(tmp_path, [scene(i) for i in range(40)])
    (folder / "broken.png").write_bytes(b"not a picture")
    found = codes_of(folder)
    assert set(found) == {"unreadable"}
    assert [f.name for f in found["unreadable"].files] == ["broken.png"]


def test_a_folder_without_readable_images_is_only_that(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    assert set(codes_of(tmp_path)) == {"unreadable", "too-few"}


def test_verification_images_that_were_calibrated_on(tmp_path):
    calibration = thumbnails_of(sorted(write(tmp_path / "a", map(scene, range(10))).iterdir()))
    others = write(tmp_path / "b", map(scene, range(20, 30)))
    assert overlap(calibration, thumbnails_of(sorted(others.iterdir()))) == []
    shared = write(tmp_path / "c", [scene(30), scene(3) * 0.9])
    (found,) = overlap(calibration, thumbnails_of(sorted(shared.iterdir())))
    assert (found.code, [f.name for f in found.files]) == ("overlap", ["001.png"])


# The subset


def test_a_subset_takes_one_of_each_cluster_whatever_the_order(tmp_path):
    rng = np.random.default_rng(0)
    centers = [scene(i) for i in (1, 2, 3)]
    pictures = [centers[i % 3] + rng.normal(0, 3, (48, 48, 3)) for i in range(15)]
    files = sorted(write(tmp_path, pictures).iterdir())
    subset = covering_subset(files, 3)
    assert {int(f.stem) % 3 for f in subset.files} == {0, 1, 2}
    assert subset.farthest < 6
    assert covering_subset(files[::-1], 3) == subset
    assert "farthest-point" in subset.how


def test_a_subset_covers_at_most_twice_as_badly_as_the_best(tmp_path):
    thumbnails = thumbnails_of(sorted(write(tmp_path, map(scene, range(9))).iterdir()))
    points = thumbnails.pixels.reshape(9, -1).astype(np.float64)
    distances = np.sqrt(np.square(points[:, None] - points[None]).mean(axis=2))
    for count in range(1, 10):
        rows, farthest = farthest_points(thumbnails, count)
        assert len(set(rows)) == count
        assert farthest == pytest.approx(distances[rows].min(axis=0).max(), abs=1e-3)
        best = min(
            distances[list(c)].min(axis=0).max() for c in itertools.combinations(range(9), count)
        )
        assert farthest <= 2 * best + 1e-3


def test_a_subset_of_repeated_images_repeats_no_file(tmp_path):
    files = sorted(write(tmp_path, [scene(0)] * 4).iterdir())
    assert sorted(covering_subset(files, 4).files) == files
    with pytest.raises(InputDataError, match="5 images"):
        covering_subset(files, 5)
