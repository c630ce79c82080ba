"""A conversion's large constants in a file, and graphs that refer to them."""

import gc
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph_of, make, run, stored, value
from onnx import TensorProto, numpy_helper

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.choose import choose_precision
from trtconvert.convert import convert
from trtconvert.graph_view import GraphView
from trtconvert.options import BuildOptions
from trtconvert.passes.dims import infer_shapes
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import QDQ_OPSET, insert_qdq, raise_opset
from trtconvert.passes.quantize_weights import (
    dequantized_weight,
    int8_constant,
    quantized_weight,
    rounded_constant,
)
from trtconvert.precision import typed_graph
from trtconvert.recipe_flags import RecipeFlags
from trtconvert.weights import LEAST_BYTES, WeightFile, is_aside, with_values_of, without_large
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

RECIPE = Recipe(
    task="classify",
    head="classifier",
    preprocess=PreprocessSpec(size=(16, 16), mean=(0.0,) * 3, std=(255.0,) * 3),
)


def conv_graph(channels=64, opset=QDQ_OPSET):
    """Two convolutions, of which the second's weight is large, and a product."""
    rng = np.random.default_rng(0)

    def weight(*shape):
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    return graph_of(
        [
            make("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
            make("Relu", ["a"], ["b"]),
            make("Conv", ["b", "w2", "bias"], ["c"], pads=[1] * 4),
            make("GlobalAveragePool", ["c"], ["d"]),
            make("Flatten", ["d"], ["e"]),
            make("Gemm", ["e", "w3"], ["y"], transB=1),
        ],
        [
            stored("w1", weight(channels, 3, 3, 3)),
            stored("w2", weight(channels, channels, 3, 3)),
            stored("w3", weight(10, channels)),
            stored("bias", np.zeros(channels, np.float32)),
        ],
        inputs=[value("x", (1, 3, 16, 16))],
        outputs=[value("y", (1, 10))],
        opset=opset,
    )


def test_large_constants_leave_the_graph_and_come_back():
    model, file = conv_graph(), WeightFile()
    before = model.SerializeToString()
    aside = file.aside(model)
    assert model.SerializeToString() == before
    assert [t.name for t in aside.graph.initializer if is_aside(t)] == ["w2"]
    assert len(aside.SerializeToString()) < len(before) - 64 * 64 * 9 * 4 + 1000
    assert file.whole(aside) == model


def test_a_constant_just_large_enough_leaves_the_graph():
    file = WeightFile()
    for count, expected in ((LEAST_BYTES // 4 - 1, False), (LEAST_BYTES // 4, True)):
        tensor = file.constant(np.arange(count, dtype=np.float32), "w")
        assert is_aside(tensor) == expected
        np.testing.assert_array_equal(file.array(tensor), np.arange(count))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "int64"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_values_come_back_bit_for_bit(dtype, layout):
    values = np.random.default_rng(1).normal(0, 50, (64, 33, 1, 17)).astype(dtype)
    file = WeightFile()
    file.constant(np.ones(5000, np.float32), "before")
    tensor = file.constant(np.asarray(values, order=layout), "w")
    found = file.array(tensor)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype
    # Indices may be what shape inference reads.
    assert is_aside(tensor) == (dtype != "int64")


def test_equal_constants_are_stored_once():
    file, values = WeightFile(), np.arange(10000, dtype=np.float32)
    first, second = file.constant(values, "a"), file.constant(values.copy(), "b")
    size = (file.folder / "weights.bin").stat().st_size
    assert file.offset(first) == file.offset(second)
    assert size == values.nbytes
    other = file.constant(values + 1, "c")
    assert file.offset(other) >= size


def test_onnxruntime_reads_the_file():
    model, file = conv_graph(), WeightFile()
    view = GraphView(file.aside(model), weights=file)
    x = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float32)
    found = view.running(view.model).run({"x": x})["y"]
    np.testing.assert_array_equal(
        found, OnnxRuntimeBackend(model.SerializeToString()).run({"x": x})["y"]
    )


def test_a_saved_model_runs_from_its_path_and_goes_with_the_file():
    model, file = conv_graph(), WeightFile()
    x = np.random.default_rng(7).normal(size=(1, 3, 16, 16)).astype(np.float32)
    first, second = file.saved(model), file.saved(model)
    assert first != second
    assert first.stat().st_size < LEAST_BYTES
    expected = OnnxRuntimeBackend(model.SerializeToString()).run({"x": x})["y"]
    for path in (first, second):
        np.testing.assert_array_equal(OnnxRuntimeBackend(path).run({"x": x})["y"], expected)
    del file
    gc.collect()
    assert not first.exists()


def test_what_looks_at_shapes_alone_gets_no_large_values():
    model = conv_graph()
    before = model.SerializeToString()
    light = without_large(model)
    assert [t.name for t in light.graph.initializer if is_aside(t)] == ["w2"]
    assert len(light.SerializeToString()) < LEAST_BYTES
    assert with_values_of(light, model) == model
    assert model.SerializeToString() == before
    inferred = infer_shapes(model)
    assert model.SerializeToString() == before
    assert inferred == onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    # Values that are in a file stay there.
    aside = WeightFile().aside(model)
    assert with_values_of(without_large(aside), aside) == aside


def test_a_build_types_a_graph_whose_large_constants_are_in_a_file(tmp_path, photos, monkeypatch):
    path = tmp_path / "model.onnx"
    onnx.save(conv_graph(), path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen = []

    def watched(clean, evidence, *rest):
        aside = [t.name for t in clean.graph.initializer if is_aside(t)]
        seen.append((aside, Path(evidence.reference).stat().st_size))
        return choose_precision(clean, evidence, *rest)

    monkeypatch.setattr("trtconvert.convert.choose_precision", watched)
    flags = RecipeFlags(task="classify", head="classifier", preprocess="none,std=255,size=16x16")
    for precision in ("int8", "fp16", "fp32"):
        options = BuildOptions(
            *(path, tmp_path / f"{precision}.onnx"),
            precision=precision,
            recipe=flags,
            calibration=CalibrationOptions(images=photos) if precision == "int8" else None,
        )
        convert(options)
        built = onnx.load(tmp_path / f"{precision}.onnx")
        assert not any(is_aside(tensor) for tensor in built.graph.initializer)
        onnx.checker.check_model(built, full_check=True)
        assert seen[-1][0] == ["w2"]
        assert seen[-1][1] < LEAST_BYTES
    gc.collect()
    assert not list((tmp_path / "temporary").glob("trtconvert-*"))


@pytest.mark.parametrize("listed_as_input", [False, True])
def test_the_opset_is_raised_without_the_constants(listed_as_input):
    old, file = conv_graph(opset=13), WeightFile()
    if listed_as_input:
        old.graph.input.append(value("w2", (64, 64, 3, 3)))
    raised = raise_opset(file.aside(old))
    assert raised.opset_import[0].version == QDQ_OPSET
    assert [t.name for t in raised.graph.initializer if is_aside(t)] == ["w2"]
    assert [v.name for v in raised.graph.input] == ["x"]
    x = np.ones((1, 3, 16, 16), np.float32)
    whole = file.whole(raised)
    np.testing.assert_array_equal(run(whole, {"x": x})[0], run(conv_graph(), {"x": x})[0])


def test_int8_weights_of_a_file_are_those_of_the_graph():
    model, file = conv_graph(), WeightFile()
    view = GraphView(file.aside(model), weights=file)
    expected = quantized_weight(GraphView(model).array("w2"), 0)
    for found in (int8_constant(view, "w2", 0), int8_constant(GraphView(model), "w2", 0)):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_weights_of_the_same_bytes_keep_their_shapes():
    values = np.random.default_rng(6).normal(size=(64, 64, 3, 3)).astype(np.float32)
    model, file = conv_graph(), WeightFile()
    shapes = {"wide": (32, 128, 3, 3), "tall": (128, 32, 3, 3)}
    for name, shape in shapes.items():
        model.graph.initializer.append(stored(name, values.reshape(shape)))
    view = GraphView(file.aside(model), weights=file)
    assert len({file.offset(view.initializers[name]) for name in shapes}) == 1
    for name, shape in shapes.items():
        integers, scales = int8_constant(view, name, 0)
        expected = quantized_weight(values.reshape(shape), 0)
        np.testing.assert_array_equal(integers, expected[0])
        np.testing.assert_array_equal(scales, expected[1])
        rounded = rounded_constant(view, name, 0, "label")
        assert rounded.name == "label"
        np.testing.assert_array_equal(
            file.array(rounded), dequantized_weight(values.reshape(shape), 0)
        )


def test_unstored_weights_give_the_same_results():
    view = GraphView(conv_graph())
    placement = place_int8(view)
    ranges = dict.fromkeys(placement.activations, 3.0)
    x = np.random.default_rng(3).normal(size=(1, 3, 16, 16)).astype(np.float32)
    integer, real = (insert_qdq(view, placement, ranges, stored=s) for s in (True, False))
    kinds = [
        {t.data_type for t in m.graph.initializer if len(t.dims) == 4} for m in (integer, real)
    ]
    assert kinds == [{TensorProto.INT8}, {TensorProto.FLOAT}]
    first, second = (
        OnnxRuntimeBackend(m.SerializeToString(), as_written=True).run({"x": x})["y"]
        for m in (integer, real)
    )
    np.testing.assert_array_equal(first, second)


def test_a_typed_graph_is_whole_and_the_same(tmp_path, photos):
    path = tmp_path / "model.onnx"
    onnx.save(conv_graph(), path)
    options = CalibrationOptions(images=photos, least_total_snr_db=20.0)
    plain = typed_graph(onnx.load(path), RECIPE, "int8", options)
    file = WeightFile()
    typed = typed_graph(file.load(path), RECIPE, "int8", options, weight_file=file)
    assert typed.model == plain.model
    assert not any(is_aside(t) for m in (typed.model, typed.twin) for t in m.graph.initializer)
    onnx.checker.check_model(typed.model, full_check=True)


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(4)
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


def test_the_file_goes_with_its_owner():
    file = WeightFile()
    folder = file.folder
    view = GraphView(file.aside(conv_graph()), weights=file)
    values = view.array("w2")
    expected = numpy_helper.to_array(conv_graph().graph.initializer[1])
    del file, view
    gc.collect()
    assert not folder.exists()
    # Mapped values outlive the file's name.
    np.testing.assert_array_equal(values, expected)


def test_the_file_goes_when_the_program_ends():
    code = "from trtconvert.weights import WeightFile; f = WeightFile(); print(f.folder)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    folder = done.stdout.strip()
    assert "trtconvert-" in folder
    assert not Path(folder).exists()


def test_a_full_disk_is_one_clear_error():
    file = WeightFile()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEAST_BYTES // 2, hard))
    try:
        with pytest.raises(InputDataError, match=r"room for temporary files in .*TMPDIR"):
            file.constant(np.ones(LEAST_BYTES, np.float32), "w")
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
        with pytest.raises(InputDataError, match=r"room for temporary files in .*TMPDIR"):
            file.saved(conv_graph(channels=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # What could not be written is not taken for written.
    tensor = file.constant(np.ones(LEAST_BYTES, np.float32), "w")
    np.testing.assert_array_equal(file.array(tensor), np.ones(LEAST_BYTES))


def test_no_folder_for_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputDataError, match="room for temporary files in"):
        WeightFile()
