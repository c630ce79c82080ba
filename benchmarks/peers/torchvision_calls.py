"""What torchvision does for the same inputs; also a program that times it in a Python of its own.

As a program, ``torchvision_calls.py CALL ARRAYS.npz`` prints its versions as JSON, and then, for
each line that it reads, the seconds of a call. It needs numpy, Pillow, torch and torchvision, and
nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], object]


def transforms_v2(image: Any, mean: Any, std: Any) -> Call:
    """A (h, w, 3) uint8 RGB array to a normalised [3, 224, 224] tensor: 256, centre crop.

    ``mean`` and ``std`` are of 0…255.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    picture = Image.fromarray(image)
    run = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(256, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((mean / 255).tolist(), (std / 255).tolist()),
        ]
    )
    return lambda: run(picture)


def batched_nms(boxes: Any, scores: Any, class_ids: Any, iou: Any) -> Call:
    """NMS by class of float32 corners."""
    import torch
    from torchvision import ops

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(array) for array in (boxes, scores, class_ids)]
    limit = float(iou)
    return lambda: ops.batched_nms(*tensors, limit)


CALLS: dict[str, Callable[..., Call]] = {
    "transforms.v2": transforms_v2,
    "ops.batched_nms": batched_nms,
}


def main() -> None:
    """Answer until there is no more to read."""
    import numpy as np
    import torch
    import torchvision

    with np.load(sys.argv[2]) as arrays:
        call = CALLS[sys.argv[1]](**{name: arrays[name] for name in arrays.files})
    call()
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        # The first call pays for having slept, which in one process nobody does.
        call()
        started = time.perf_counter()
        call()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
