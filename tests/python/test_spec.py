"""The preprocess spec: parsing, presets, canonical form, refusals."""

from __future__ import annotations

import json

import pytest

from visionrt.errors import UsageError
from visionrt.spec import PRESETS, PreprocessSpec


def test_presets_round_trip_through_json() -> None:
    for name, spec in PRESETS.items():
        again = PreprocessSpec.from_json(json.loads(json.dumps(spec.to_json())))
        assert again == spec, name
        assert again.digest == spec.digest
        assert PreprocessSpec.parse(name) == spec


def test_digest_tells_specs_apart_and_ignores_how_they_were_written() -> None:
    digests = {spec.digest for spec in PRESETS.values()}
    assert len(digests) == len(PRESETS)
    assert PreprocessSpec(mean=(1, 2, 3)).digest == PreprocessSpec(mean=[1.0, 2.0, 3.0]).digest  # type: ignore[arg-type]
    assert PreprocessSpec(pad_value=1).digest != PreprocessSpec(pad_value=2).digest


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("imagenet,size=288x300", {"size": (288, 300)}),
        ("imagenet,size=288", {"size": (288, 288)}),
        ("imagenet,mean=127,std=128", {"mean": (127.0,) * 3, "std": (128.0,) * 3}),
        ("imagenet,mean=1,2,3,std=4,5,6", {"mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0)}),
        ("yolo,pad_value=0,layout=nhwc", {"pad_value": 0, "layout": "nhwc"}),
        (" yolo , color = bgr ".replace(" ", ""), {"color": "bgr"}),
        ("imagenet,crop_ratio=1", {"crop_ratio": 1}),
    ],
)
def test_preset_with_changes(text: str, changes: dict[str, object]) -> None:
    base = PRESETS[text.split(",", maxsplit=1)[0]]
    assert PreprocessSpec.parse(text) == base.replace(**changes)


def test_json_text() -> None:
    spec = PreprocessSpec.parse('{"resize": "crop", "size": [192, 256], "mean": 5}')
    assert (spec.resize, spec.size, spec.mean) == ("crop", (192, 256), (5.0, 5.0, 5.0))


@pytest.mark.parametrize(
    ("layout", "color", "shape"),
    [
        ("nchw", "rgb", (2, 3, 10, 20)),
        ("nhwc", "bgr", (2, 10, 20, 3)),
        ("nchw", "gray", (2, 1, 10, 20)),
    ],
)
def test_tensor_shape(layout: str, color: str, shape: tuple[int, ...]) -> None:
    assert PreprocessSpec(size=(10, 20), layout=layout, color=color).tensor_shape(2) == shape


@pytest.mark.parametrize(
    "text",
    [
        "",
        "imagnet",
        "imagenet,size=axb",
        "imagenet,size=0x5",
        "imagenet,size=1x2x3",
        "imagenet,mean=1,2",
        "imagenet,mean=a",
        "imagenet,std=0",
        "imagenet,std=-1",
        "imagenet,color=rbg",
        "imagenet,5",
        "imagenet,depth=3",
        "imagenet,pad_value=256",
        "imagenet,pad_value=x",
        "imagenet,crop_ratio=0",
        "imagenet,crop_ratio=1.5",
        "imagenet,mean=nan",
        "imagenet,std=inf",
        "imagenet,dtype=uint8",
        "imagenet,layout=chw",
        "{",
        '{"resize": "fit"}',
        '{"sise": [1, 2]}',
        '{"size": [1.5, 2]}',
        '{"size": 640}',
        '{"size": [true, 2]}',
        '{"mean": "x"}',
    ],
)
def test_wrong_specs_are_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        PreprocessSpec.parse(text)
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_uint8_needs_the_identity() -> None:
    assert PreprocessSpec(dtype="uint8", std=(1, 1, 1)).dtype == "uint8"
    with pytest.raises(UsageError):
        PreprocessSpec(dtype="uint8")
