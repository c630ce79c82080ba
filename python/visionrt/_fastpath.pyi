import numpy as np
from numpy.typing import NDArray

def image_shape(image: object) -> tuple[int, int, int, bool] | None: ...
def softmax_top_k(
    logits: NDArray[np.float32],
    k: int,
    offset: int = 0,
    softmax: bool = True,
    allowed: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]: ...
