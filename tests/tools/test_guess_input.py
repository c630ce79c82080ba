"""How the image input is fed: what the graph tells, what must be given, and sizes of axes."""

from __future__ import annotations

import pytest
from guess_models import flags, model_with
from onnx import TensorProto

from trtconvert.guess import RecipeFlags, recipe_for
from trtconvert.shapes import ShapeFlags, input_ranges, parse_shapes
from trtconvert.targets.base import ShapeRange
from visionrt.errors import ModelError, UsageError
from visionrt.spec import PRESETS, PreprocessSpec

# preprocessing


def test_preprocessing_is_never_guessed():
    with pytest.raises(UsageError, match=r"--preprocess.*imagenet, yolo"):
        recipe_for(model_with({"y": (1, 1000)}), RecipeFlags())


def test_size_layout_and_type_come_from_the_graph():
    recipe, reasons = recipe_for(
        model_with({"y": (1, 1000)}, image=(1, 48, 56, 3), dtype=TensorProto.UINT8), flags()
    )
    spec = recipe.preprocess
    assert (spec.size, spec.layout, spec.dtype) == ((48, 56), "nhwc", "uint8")
    assert reasons["preprocess.layout"] == "the graph's input"
    half, _ = recipe_for(model_with({"y": (1, 1000)}, dtype=TensorProto.FLOAT16), flags("imagenet"))
    assert half.preprocess.dtype == "float16"
    assert half.preprocess.mean == PRESETS["imagenet"].mean


def test_gray_input():
    recipe, _ = recipe_for(model_with({"y": (1, 1000)}, image=(1, 1, 96, 96)), flags())
    assert recipe.preprocess.color == "gray"
    with pytest.raises(UsageError, match="1 channel"):
        recipe_for(model_with({"y": (1, 1000)}, image=(1, 1, 96, 96)), flags("none,color=rgb"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("imagenet,size=32x32", "size 96x96"),
        ("none,layout=nhwc", "layout nchw|1 or 3 channels"),
        ('{"dtype": "float16"}', "dtype float32"),
        ("imagnet", "preset"),
        ('{"size": [64', "JSON"),
    ],
)
def test_contradictions_are_refused(text, match):
    with pytest.raises((UsageError, ModelError), match=match):
        recipe_for(model_with({"y": (1, 1000)}), flags(text))


def test_uint8_input_with_a_normalising_preset_is_refused():
    image = model_with({"y": (1, 1000)}, image=(1, 64, 64, 3), dtype=TensorProto.UINT8)
    with pytest.raises(UsageError, match="no normalisation"):
        recipe_for(image, flags("imagenet"))
    recipe, _ = recipe_for(image, flags('{"resize": "letterbox", "pad_value": 0}'))
    assert recipe.preprocess.std == (1.0, 1.0, 1.0)


def test_dynamic_size_must_be_given():
    model = model_with({"y": ("n", 1000)}, image=("n", 3, "h", "w"))
    with pytest.raises(UsageError, match="input size"):
        recipe_for(model, flags("yolo"))
    recipe, _ = recipe_for(model, flags("yolo,size=64x96"))
    assert recipe.preprocess.size == (64, 96)
    shapes = ShapeFlags(opt=parse_shapes("image:1x3x64x96"))
    recipe, _ = recipe_for(model, flags("yolo"), shapes)
    assert recipe.preprocess.size == (64, 96)


@pytest.mark.parametrize("image", [(1, 4, 64, 64), (3, 64, 64), (1, 5)])
def test_inputs_that_are_no_image(image):
    with pytest.raises(ModelError):
        recipe_for(model_with({"y": (1, 1000)}, image=image), flags())


# shapes


def test_shapes_are_parsed_from_the_right():
    assert parse_shapes("a:1x3x8x8,Pre/sub:0:2x2") == {"a": (1, 3, 8, 8), "Pre/sub:0": (2, 2)}
    assert parse_shapes("1x3x8X8") == {"": (1, 3, 8, 8)}
    for text in ("a:1x-1", "a:", "a:1xx2", "a:0x1"):
        with pytest.raises(UsageError):
            parse_shapes(text)


SPEC = PreprocessSpec(size=(64, 64))


def shaped(**texts):
    return ShapeFlags(**{key: parse_shapes(text) for key, text in texts.items()})


def ranges_of(flags, image=("n", 3, 64, 64)):
    return input_ranges(model_with({"y": (1, 1000)}, image=image), SPEC, flags)["image"]


def test_ranges():
    one, four = (1, 3, 64, 64), (4, 3, 64, 64)
    assert ranges_of(ShapeFlags()) == ShapeRange.fixed(one)
    assert ranges_of(ShapeFlags(batch=4)) == ShapeRange(one, one, four)
    assert ranges_of(ShapeFlags(), image=(4, 3, 64, 64)) == ShapeRange.fixed(four)
    assert ranges_of(shaped(opt="4x3x64x64")) == ShapeRange.fixed(four)
    given = shaped(min="image:1x3x64x64", max="image:4x3x64x64")
    assert ranges_of(given) == ShapeRange(one, four, four)


@pytest.mark.parametrize(
    ("given", "image", "match"),
    [
        (shaped(opt="other:1x3x64x64"), ("n", 3, 64, 64), "shapes for the input 'image'"),
        (shaped(opt="1x3x32x32"), ("n", 3, 64, 64), "1x3x64x64"),
        (shaped(min="4x3x64x64", max="1x3x64x64"), ("n", 3, 64, 64), "min ≤ opt ≤ max"),
        (shaped(opt="2x3x64x64"), (1, 3, 64, 64), "fixed in the graph"),
        (ShapeFlags(batch=2), (1, 3, 64, 64), "fixed in the graph"),
    ],
)
def test_impossible_ranges(given, image, match):
    with pytest.raises(UsageError, match=match):
        ranges_of(given, image)
