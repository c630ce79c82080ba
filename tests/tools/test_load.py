"""Broken and hostile ONNX files are refused by name and reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from trtconvert.load import check_graph, load_model
from visionrt.errors import InputDataError, ModelError

MODELS = Path(__file__).parents[1] / "data" / "models"


def tiny(nodes, initializers=(), *, inputs=None, outputs=None, opset=17, ir_version=8, domains=()):
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph(
        nodes,
        "tiny",
        [image] if inputs is None else inputs,
        [result] if outputs is None else outputs,
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def node(op_type, inputs, outputs, **attributes):
    name = attributes.pop("name", f"{op_type}_{outputs[0]}")
    return helper.make_node(op_type, inputs, outputs, name=name, **attributes)


def saved(tmp_path: Path, model: ModelProto | bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in MODELS.glob("*.onnx")))
def test_real_models_load(name):
    loaded = load_model(MODELS / name)
    assert loaded.file_bytes == (MODELS / name).stat().st_size
    assert len(loaded.model.graph.node) > 100
    assert loaded.external_files == ()


def test_truncated_at_any_length_is_refused(tmp_path):
    data = tiny(
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        [numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")],
    ).SerializeToString()
    assert load_model(saved(tmp_path, data)).file_bytes == len(data)
    for length in range(len(data)):
        with pytest.raises(ModelError):
            load_model(saved(tmp_path, data[:length]))


def test_real_truncated_model_is_one_line(tmp_path):
    data = (MODELS / "efficientnet_lite0.onnx").read_bytes()
    with pytest.raises(ModelError) as caught:
        load_model(saved(tmp_path, data[: len(data) // 2]))
    assert "truncated" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_escape_as_another_exception(tmp_path):
    data = tiny(
        [node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["y"])],
        [numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")],
    ).SerializeToString()
    messages = []
    for position in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            flipped = bytearray(data)
            flipped[position] ^= mask
            try:
                load_model(saved(tmp_path, bytes(flipped)))
            except (ModelError, InputDataError) as error:
                messages.append(str(error))
    assert len(messages) > len(data)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (bytes(range(256)), "another format"),
    ],
)
def test_other_formats_are_named(tmp_path, data, word):
    with pytest.raises(ModelError, match=word):
        load_model(saved(tmp_path, data))


def test_missing_file(tmp_path):
    with pytest.raises(InputDataError, match="No such file"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(InputDataError):
        load_model(tmp_path)


def test_cycle_names_its_nodes():
    model = tiny(
        [
            node("Relu", ["b"], ["a"], name="first"),
            node("Relu", ["a"], ["b"], name="second"),
            node("Add", ["x", "b"], ["y"]),
        ]
    )
    with pytest.raises(ModelError, match=r"Relu 'first' → Relu 'second' → Relu 'first'"):
        check_graph(model)


def test_self_cycle():
    with pytest.raises(ModelError, match="cycle"):
        check_graph(tiny([node("Add", ["x", "y"], ["y"])]))


def test_unsorted_but_acyclic_is_sorted():
    model = tiny([node("Add", ["x", "b"], ["y"]), node("Relu", ["x"], ["b"])])
    check_graph(model)
    assert [n.op_type for n in model.graph.node] == ["Relu", "Add"]


def test_sorting_sees_what_bodies_read():
    def body(value):
        output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
        return helper.make_graph([node("Neg", [value], ["o"])], "body", [], [output])

    condition = numpy_helper.from_array(np.array(True), "c")
    branch = node("If", ["c"], ["y"], then_branch=body("late"), else_branch=body("x"))
    model = tiny([branch, node("Relu", ["x"], ["late"])], [condition])
    check_graph(model)
    assert [n.op_type for n in model.graph.node] == ["Relu", "If"]


def test_missing_initializer_names_tensor_and_reader():
    model = tiny([node("Conv", ["x", "stem.weight"], ["y"], name="stem")])
    with pytest.raises(ModelError, match=r"'stem\.weight', which Conv 'stem' reads"):
        check_graph(model)


def test_undefined_output():
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])]
    with pytest.raises(ModelError, match="'z', which the graph's outputs reads"):
        check_graph(tiny([node("Relu", ["x"], ["y"])], outputs=outputs))


def test_value_defined_twice():
    with pytest.raises(ModelError, match="'y' defined again by Neg"):
        check_graph(tiny([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])]))


@pytest.mark.parametrize(
    ("op_type", "domain", "reason"),
    [
        ("FooBar", "", "no such operator"),
        ("EfficientNMS_TRT", "", "TensorRT plugin"),
        ("EfficientNMS_TRT", "TRT", "TensorRT plugin"),
        ("FusedConv", "com.microsoft", "only ONNX Runtime has it"),
        ("Thing", "vendor.x", "domain 'vendor.x'"),
        ("Gelu", "", "not in operator set 17"),
        ("Upsample", "", "removed"),
    ],
)
def test_unsupported_operator_names_node_and_reason(op_type, domain, reason):
    model = tiny([node(op_type, ["x"], ["y"], name="culprit", domain=domain)], domains=["TRT"])
    with pytest.raises(ModelError, match=f"'culprit'.*{reason}"):
        check_graph(model)


@pytest.mark.parametrize(("opset", "word"), [(6, "7 or newer"), (999, "Upgrade the onnx package")])
def test_operator_set_out_of_range(opset, word):
    with pytest.raises(ModelError, match=word):
        check_graph(tiny([node("Relu", ["x"], ["y"])], opset=opset))


def test_no_operator_set():
    model = tiny([node("Relu", ["x"], ["y"])])
    del model.opset_import[:]
    with pytest.raises(ModelError, match="operator set"):
        check_graph(model)


def test_no_inputs_and_inputs_that_are_all_weights():
    weight = numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "x")
    with pytest.raises(ModelError, match="with an input"):
        check_graph(tiny([node("Relu", ["x"], ["y"])], [weight], inputs=[]))
    with pytest.raises(ModelError, match="with an input"):
        check_graph(tiny([node("Relu", ["x"], ["y"])], [weight]))


def test_empty_graph():
    with pytest.raises(ModelError, match="empty graph"):
        check_graph(tiny([]))


def test_checker_message_is_one_line():
    with pytest.raises(ModelError) as caught:
        check_graph(tiny([node("Conv", ["x", "x"], ["y"], strides=[1.5], name="c")]))
    assert "\n" not in str(caught.value)


def with_external_weight(folder: Path, location: str, **entries: str) -> ModelProto:
    weight = numpy_helper.from_array(np.full((3, 3, 3, 3), 0.5, np.float32), "w")
    model = tiny([node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], [weight])
    tensor = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(b"\0" * 16 + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    values = {"location": location, "offset": "16", "length": str(81 * 4), **entries}
    for key, value in values.items():
        tensor.external_data.add(key=key, value=value)
    return model


def test_external_data_is_read(tmp_path):
    loaded = load_model(saved(tmp_path, with_external_weight(tmp_path, "weights.bin")))
    assert loaded.external_files == ("weights.bin",)
    tensor = loaded.model.graph.initializer[0]
    assert not tensor.external_data
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.float32(0.5))


def test_external_data_written_by_onnx_is_read(tmp_path):
    model = onnx.load(MODELS / "selfie_segmentation.onnx")
    original = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=64)
    loaded = load_model(tmp_path / "m.onnx")
    assert loaded.external_files
    for tensor in loaded.model.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), original[tensor.name])


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", ""])
def test_external_data_outside_the_folder(tmp_path, location):
    inner = tmp_path / "inner"
    inner.mkdir()
    model = with_external_weight(tmp_path, location)
    with pytest.raises(ModelError, match="inside the model's folder"):
        load_model(saved(inner, model))


def test_external_data_through_a_link_that_leaves(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    model = with_external_weight(tmp_path, "link.bin")
    (inner / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="inside the model's folder"):
        load_model(saved(inner, model))


def test_external_data_missing_or_short(tmp_path):
    with pytest.raises(InputDataError, match=r"other\.bin"):
        load_model(saved(tmp_path, with_external_weight(tmp_path, "other.bin")))
    with pytest.raises(InputDataError, match="truncated"):
        load_model(saved(tmp_path, with_external_weight(tmp_path, "weights.bin", offset="20")))


@pytest.mark.parametrize("entries", [{"offset": "-4"}, {"length": "5"}, {"offset": "x"}])
def test_external_data_malformed(tmp_path, entries):
    with pytest.raises(ModelError, match="well-formed"):
        load_model(saved(tmp_path, with_external_weight(tmp_path, "weights.bin", **entries)))


def test_external_data_too_large_is_refused_before_it_is_read(tmp_path):
    model = with_external_weight(tmp_path, "weights.bin")
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 10]
    with pytest.raises(ModelError, match="below 2 GiB"):
        load_model(saved(tmp_path, model))
