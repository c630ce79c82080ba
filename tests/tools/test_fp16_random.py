"""Random graphs through the float16 pass: always valid, always near the float32 answer."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtconvert.passes.emulate_half import emulate_half
from trtconvert.passes.half import convert_to_half

SHAPE = [1, 4, 3, 3]


class RandomGraph:
    """A few operators on earlier tensors, all of one shape; some tensors are outputs."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.floats = [], [], ["x"]
        for _ in range(self.rng.integers(1, 14)):
            step = self.rng.choice(self.steps)
            self.floats.append(getattr(self, step)(self.any(), self.any()))
        made = self.floats[1:]
        wanted = self.rng.choice(made, size=min(len(made), self.rng.integers(1, 4)))
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "random",
            [info("x", TensorProto.FLOAT, SHAPE), info("u", TensorProto.UINT8, SHAPE)],
            [info(name, TensorProto.FLOAT, SHAPE) for name in dict.fromkeys(wanted)],
            self.constants,
        )
        opset = helper.make_opsetid("", 19)
        self.model = helper.make_model(graph, opset_imports=[opset], ir_version=9)

    steps = (
        "add",
        "squash",
        "scale",
        "exponential",
        "move",
        "alias",
        "image",
        "truncate",
        "pool",
        "pair",
        "split",
        "convolve",
    )

    def any(self):
        return str(self.rng.choice(self.floats))

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def constant(self, value):
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, a, b):
        return self.op("Add", a, b)

    def squash(self, a, _):
        return self.op("Sigmoid", a)

    def scale(self, a, _):
        # 1e-9 is no float16 number.
        return self.op("Mul", a, self.constant(self.rng.choice(np.float32([0.5, 1.5, 1e-9]))))

    def exponential(self, a, _):
        return self.op("Exp", self.op("Tanh", a))

    def move(self, a, _):
        return self.op("Transpose", self.op("Transpose", a, perm=[0, 1, 3, 2]), perm=[0, 1, 3, 2])

    def alias(self, a, _):
        return self.op("Cast", a, to=TensorProto.FLOAT)

    def image(self, *_):
        return self.op("Cast", "u", to=TensorProto.FLOAT)

    def truncate(self, *_):
        # Of the input alone: a rounding may carry any other value across an integer.
        return self.op("Cast", self.op("Cast", "x", to=TensorProto.INT64), to=TensorProto.FLOAT)

    def pool(self, a, b):
        axes = self.constant(np.int64([2, 3]))
        return self.op("Add", self.op("ReduceMean", a, axes, keepdims=1), b)

    def pair(self, a, _):
        # Steps so fine that a rounding across a step is within the tolerance.
        pair = [self.constant(np.float32(0.0625)), self.constant(np.int8(0))]
        return self.op("DequantizeLinear", self.op("QuantizeLinear", a, *pair), *pair)

    def split(self, a, b):
        both = self.op("Concat", a, b, axis=1)
        return self.op("Split", both, outputs=2, axis=1, num_outputs=2)

    def convolve(self, a, _):
        weights = self.rng.normal(size=(4, 4, 1, 1)).astype(np.float32) * np.float32(0.3)
        return self.op("Conv", a, self.constant(weights))


def run(model, x, u):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x, "u": u})


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_random_graphs(first):
    for seed in range(first, first + 30):
        source = RandomGraph(seed)
        onnx.checker.check_model(source.model, full_check=True)
        typed, decisions = convert_to_half(source.model)
        emulated = emulate_half(typed)
        onnx.checker.check_model(emulated, full_check=True)
        assert len(decisions) == len(source.nodes)
        x = source.rng.normal(size=SHAPE).astype(np.float32)
        u = source.rng.integers(0, 9, SHAPE).astype(np.uint8)
        triples = zip(run(source.model, x, u), run(typed, x, u), run(emulated, x, u), strict=True)
        for want, got, rounded in triples:
            # Two Q/DQ steps of 1/16; float16 itself is a hundred times finer.
            bound = 0.125 * max(1.0, np.abs(want).max())
            assert np.abs(got - want).max() < bound, seed
            assert np.abs(rounded - want).max() < bound, seed
