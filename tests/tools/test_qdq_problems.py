"""Quantized graphs that TensorRT would take for something else, or fail on without a word."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from trtconvert.check import known_problems, refuse_known
from trtconvert.qdq_problems import qdq_problems
from trtconvert.targets import parse_target
from visionrt.errors import ModelError

SYMMETRIC = np.zeros((), np.int8)


def graph(scale=0.1, zero=SYMMETRIC, *, quantize="s, z", dequantize="s, z", weight=None):
    tail = (
        " e = DequantizeLinear(w, s)\n y = Add(d, e) }" if weight is not None else " y = Relu(d) }"
    )
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4] x) => (float[1,4] y) {'
        f" q = QuantizeLinear(x, {quantize})\n d = DequantizeLinear(q, {dequantize})\n{tail}"
    )
    constants = {"s": np.asarray(scale, np.float32), "z": np.asarray(zero), "w": weight}
    for name, value in constants.items():
        if value is not None:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def reasons(model):
    return [(node.output[0], reason) for node, reason in qdq_problems(model)]


def test_a_symmetric_int8_pair_is_sound():
    assert reasons(graph()) == []
    assert reasons(graph(np.float32([0.1] * 4), np.zeros(4, np.int8))) == []
    assert reasons(graph(weight=np.int8([[1, 2, 3, 4]]))) == []


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (graph(zero=np.uint8(0)), "uint8"),
        (graph(zero=np.uint8(128)), "uint8"),
        (graph(zero=np.int8(3)), "zero point"),
        (graph(0.0), "scale"),
        (graph(-0.1), "scale"),
        (graph(np.nan), "scale"),
        (graph(np.float32([0.1, 0, 0.1, 0.1]), np.zeros(4, np.int8)), "scale"),
        # Without a zero point the integers are uint8.
        (graph(quantize="s", dequantize="s"), "uint8"),
        (graph(weight=np.uint8([[1, 2, 3, 4]])), "uint8"),
    ],
)
def test_what_is_not_symmetric_int8_is_refused_for_every_gpu_target(model, word):
    node, reason = reasons(model)[0]
    assert word in reason
    assert any(problem.reason == reason for problem in known_problems(model))
    for name in ("rtx:sm86", "tensorrt"):
        with pytest.raises(ModelError, match=word) as caught:
            refuse_known(model, parse_target(name))
        assert node in str(caught.value)
    refuse_known(model, parse_target("cpu"))


def test_a_zero_point_in_a_constant_node_is_seen_too():
    model = graph()
    del model.graph.initializer[1]
    zero = numpy_helper.from_array(np.array(5, np.int8), "z")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["z"], value=zero))
    assert len(reasons(model)) == 2
