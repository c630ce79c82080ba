"""Which scales make the first convolution's output impossibly large or small.

A trained network has normalised its layers, and folding the normalisation into the weights leaves
outputs of a size around 1 at the first convolution. Pixels that were not divided by 255 make them
some hundred times larger, and pixels that were divided without need, smaller. The bounds are wide:
within them nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtconvert.cutting import cut_at
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

# Of the standard deviation of the channel that varies most. Seen in trained models fed rightly:
# 0.2 to 21; with pixels 255 times too large: 27 to 1200; 255 times too small: 0.004.
LEAST, MOST = 0.02, 100.0


def plausible_scales(
    model: ModelProto,
    specs: Mapping[str, PreprocessSpec],
    images: Sequence[NDArray[np.uint8]],
) -> list[str]:
    """The keys of ``specs`` under which the first convolution answers in a usual size.

    All of them where the graph has no convolution, or where none would be left. Runs the model up
    to there once per image and spec.
    """
    cut = _up_to_first_conv(model)
    if cut is None:
        return list(specs)
    backend = OnnxRuntimeBackend(cut.SerializeToString())
    kept = []
    try:
        info = backend.inputs[0]
        batch = info.shape[0] if isinstance(info.shape[0], int) else 1
        for key, spec in specs.items():
            preprocess = Preprocessor(spec)
            feeds = (np.repeat(preprocess([pixels]), batch, axis=0) for pixels in images)
            outputs = [next(iter(backend.run({info.name: feed}).values()))[:1] for feed in feeds]
            spread = np.concatenate(outputs).astype(np.float64).std(axis=(0, 2, 3)).max()
            if LEAST <= spread <= MOST:
                kept.append(key)
    finally:
        backend.close()
    return kept or list(specs)


def _up_to_first_conv(model: ModelProto) -> ModelProto | None:
    first = next((node for node in model.graph.node if node.op_type == "Conv"), None)
    return None if first is None else cut_at(model, first.output)
