"""What the heads decode on the fake GPU: every form, type and filter, against the CPU twin.

Each test names a function below it, which runs in a process of its own; see fake_gpu.py.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, assert_same, both, random_images, yolo_model
from real_models import (
    ASTRONAUT,
    CHELSEA,
    COFFEE,
    RECIPES,
    ROCKET,
    model_path,
)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_real_models(fake_gpu: FakeGpu, emulated_kernels: Path, name: str) -> None:
    fake_gpu.run(real_model, name, kernels=emulated_kernels, fast=True)


def real_model(name: str) -> None:
    with both(model_path(name).read_bytes(), RECIPES[name]) as (gpu, cpu):
        photos = (COFFEE, CHELSEA, ASTRONAUT, ROCKET, COFFEE, COFFEE)
        for got, wanted in [(gpu(photo), cpu(photo)) for photo in photos]:
            assert_same(got, wanted)


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5", "yolox"])
def test_every_yolo_form(fake_gpu: FakeGpu, emulated_kernels: Path, form: str) -> None:
    fake_gpu.run(yolo_form, form, kernels=emulated_kernels)


def yolo_form(form: str) -> None:
    head, options = ("yolox", {}) if form == "yolox" else ("yolo", {"form": form})
    for changes in ({}, {"multi_label": True}):
        recipe = dataclasses.replace(BOXES, head=head, head_options={**options, **changes})
        for agnostic in (False, True):
            recipe = dataclasses.replace(recipe, class_agnostic=agnostic)
            with both(yolo_model(form=form), recipe) as (gpu, cpu):
                pairs = [(gpu(image), cpu(image)) for image in random_images(4)]
                for got, wanted in pairs:
                    assert_same(got, wanted)
                assert sum(len(wanted) for _, wanted in pairs) > 4


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5", "yolox"])
def test_float16_outputs_stay_on_the_device(
    fake_gpu: FakeGpu, emulated_kernels: Path, form: str
) -> None:
    fake_gpu.run(float16_outputs, form, kernels=emulated_kernels, fast=True)


def float16_outputs(form: str) -> None:
    head, options = ("yolox", {}) if form == "yolox" else ("yolo", {"form": form})
    recipe = dataclasses.replace(BOXES, head=head, head_options=options)
    with both(yolo_model(form=form, half=True), recipe) as (gpu, cpu):
        for image in (*random_images(4), *random_images(2)):
            assert_same(gpu(image), cpu(image))
        assert "boxes by kernels on the GPU" in gpu.explain()


def test_classes_are_filtered_on_the_device(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(filtered_classes, kernels=emulated_kernels)


def filtered_classes() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for classes in (["red"], ["red", "blue"], [2, 1], [0, 4095], [4095], []):
            for _ in range(3):
                assert_same(gpu(image, classes=classes), cpu(image, classes=classes))
        assert "boxes by kernels on the GPU" in gpu.explain()
        # The kernel's mask has an end; past it the head on the CPU decodes.
        assert_same(gpu(image, classes=[0, 4096]), cpu(image, classes=[0, 4096]))
        assert "outputs on the CPU" in gpu.explain()


def test_an_infinite_box_is_left_out_on_the_device(
    fake_gpu: FakeGpu, emulated_kernels: Path
) -> None:
    fake_gpu.run(infinite_box, kernels=emulated_kernels)


def infinite_box() -> None:
    # Such a box would stand first and take the place of another: max_det=2 shows it.
    with both(yolo_model(infinite_anchor=10), BOXES) as (gpu, cpu):
        for image in (*random_images(4), random_images(1)[0]):
            for max_det in (2, 300):
                results = gpu(image, max_det=max_det)
                assert np.isfinite(results.xyxy).all()
                assert_same(results, cpu(image, max_det=max_det))
        assert "boxes by kernels on the GPU" in gpu.explain()


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5"])
def test_rotated_boxes_equal_the_twins(
    fake_gpu: FakeGpu, emulated_kernels: Path, form: str
) -> None:
    fake_gpu.run(rotated_boxes, form, kernels=emulated_kernels, fast=True)


def rotated_boxes(form: str) -> None:
    # Of the three class columns the last is read as an angle, in radians.
    recipe = dataclasses.replace(
        BOXES, task="obb", head="obb", head_options={"form": form}, labels=("red", "green"), iou=0.2
    )
    with both(yolo_model(form=form), recipe) as (gpu, cpu):
        pairs = [(gpu(image, **o), cpu(image, **o)) for image in random_images(5)
                 for o in ({}, {}, {"classes": [1]}, {"max_det": 3})]  # fmt: skip
        for got, wanted in pairs:
            assert_same(got, wanted)
            np.testing.assert_array_equal(got.xywhr, wanted.xywhr)
        assert sum(len(wanted) for _, wanted in pairs) > 40
        for got, wanted in zip(gpu(random_images(3)), cpu(random_images(3)), strict=True):
            assert_same(got, wanted)
        assert "boxes by kernels on the GPU" in gpu.explain()


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5"])
def test_poses_and_instances_equal_the_twins(
    fake_gpu: FakeGpu, emulated_kernels: Path, form: str
) -> None:
    fake_gpu.run(poses_and_instances, form, kernels=emulated_kernels, fast=True)


def poses_and_instances(form: str) -> None:
    """One class; the other two class columns are a keypoint, or the coefficients of a mask."""
    images = random_images(4)
    options: dict[str, Any] = {"form": form}
    pose = dataclasses.replace(
        BOXES,
        task="keypoints",
        head="yolo_pose",
        labels=("red",),
        head_options=options | {"dims": 2, "names": ["nose"], "skeleton": []},
    )
    with both(yolo_model(form=form), pose) as (gpu, cpu):
        pairs = [(gpu(image), cpu(image)) for image in (*images, *images)]
        for got, wanted in pairs:
            assert_same(got, wanted)
            np.testing.assert_array_equal(got.xyxy, wanted.xyxy)
            np.testing.assert_array_equal(got.score, wanted.score)
        assert sum(len(wanted.score) for _, wanted in pairs) > 20
        assert "boxes by kernels on the GPU" in gpu.explain()
    masks = dataclasses.replace(
        BOXES, task="instances", head="proto_mask", labels=("red",), head_options=options
    )
    with both(yolo_model(form=form, prototypes=True), masks) as (gpu, cpu):
        pairs = [(gpu(image), cpu(image)) for image in (*images, *images)]
        pairs += list(zip(gpu(images), cpu(images), strict=True))
        pairs.append((gpu(images[0], confidence=1.0), cpu(images[0], confidence=1.0)))
        assert "boxes by kernels on the GPU" in gpu.explain()
        made = fake_cuda.calls("cuMemcpyDtoHAsync")
        picked = pairs[0][0][1:3]  # before its masks are made
        copied = copy.deepcopy(pairs[1][0])
        kept = pairs.pop(2)
        for got, wanted in pairs:
            assert_same(got, wanted)
        assert sum(int(wanted.mask.sum()) for _, wanted in pairs) > 1000
        assert fake_cuda.calls("cuMemcpyDtoHAsync") > made
        np.testing.assert_array_equal(picked.mask, pairs[0][1].mask[1:3])
        assert_same(copied, pairs[1][1])
    assert_same(*kept)  # masks are made when the model is closed
    del gpu, pairs, picked, kept, got, copied
    gc.collect()
