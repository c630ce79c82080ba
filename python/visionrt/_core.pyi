# Generated from the compiled module by tools/dev/stubs.py; do not edit.
"""
Native operations: preprocessing, decoding, NMS and masks, on the CPU and through CUDA.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing
import typing_extensions

__all__: list[str] = [
    "DriverError",
    "Geometry",
    "Graph",
    "GraphRecording",
    "PreprocessPlan",
    "binary_mask",
    "class_mask",
    "cpu_level",
    "cpu_levels",
    "cuda_decode_ssd",
    "cuda_decode_yolo",
    "cuda_decode_yolox",
    "cuda_instance_masks",
    "cuda_nms",
    "cuda_nms_rotated",
    "cuda_nms_rotated_workspace_bytes",
    "cuda_nms_workspace_bytes",
    "decode_capacity",
    "decode_ssd",
    "decode_yolo",
    "decode_yolox",
    "dlpack_capsule",
    "driver_problem",
    "embedded_fatbins",
    "graph_begin",
    "graph_discard",
    "graph_end",
    "has_kernels",
    "instance_masks",
    "max_filter_classes",
    "nms",
    "nms_batched",
    "nms_rotated",
    "rotated_shared_areas",
    "use_cpu_level",
    "wait_for_stream",
]

class Geometry:
    """
    Where an image lands in the tensor. In continuous coordinates, where pixel i covers [i, i + 1): image_x = (tensor_x - offset_x) * scale_x, and likewise y. Offsets are the letterbox border, or negative in a crop.
    """
    @property
    def image_h(self) -> int: ...
    @property
    def image_w(self) -> int: ...
    @property
    def offset_x(self) -> int: ...
    @property
    def offset_y(self) -> int: ...
    @property
    def resized_h(self) -> int: ...
    @property
    def resized_w(self) -> int: ...
    @property
    def scale_x(self) -> float: ...
    @property
    def scale_y(self) -> float: ...

class PreprocessPlan:
    """
    A checked, immutable preprocess spec, ready to run. Safe to use from several threads. Bad values raise ValueError.
    """
    def __init__(
        self,
        resize: str,
        size_hw: typing.Annotated[
            collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"
        ],
        crop_ratio: typing.SupportsFloat | typing.SupportsIndex,
        interpolation: str,
        color: str,
        mean: typing.Annotated[
            collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"
        ],
        std: typing.Annotated[
            collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"
        ],
        pad_value: typing.SupportsInt | typing.SupportsIndex,
        letterbox_align: str,
        layout: str,
        dtype: str,
    ) -> None: ...
    def cuda_table(
        self,
        height: typing.SupportsInt | typing.SupportsIndex,
        width: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.int32]:
        """
        int32 [k]: what run_cuda wants in device memory for images of a size, weights in pil mode. Empty in cv2 mode.
        """
    def geometry(
        self,
        height: typing.SupportsInt | typing.SupportsIndex,
        width: typing.SupportsInt | typing.SupportsIndex,
    ) -> Geometry:
        """
        Where an image of this size lands in the tensor.
        """
    def run(
        self,
        images: list[numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]],
        out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        source_color: str,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None:
        """
        Fills `out` on the CPU, without the GIL. Images are uint8 (height, width, 3) with contiguous pixels and any row stride; `out` is C-contiguous, of the tensor's shape and dtype.
        """
    def run_cuda(
        self,
        images: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
            ]
        ],
        out: typing.SupportsInt | typing.SupportsIndex,
        tables: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        stream: typing.SupportsInt | typing.SupportsIndex,
        source_color: str,
    ) -> None:
        """
        Queues the same work on a CUDA stream, one launch for up to 32 images. Images are (address, height, width, row_bytes) in device memory; `tables` holds the address of the cuda_table of each one's size, and may be empty in cv2 mode. Does not block. Raises DriverError when the driver is missing or refuses.
        """

class DriverError(RuntimeError):
    pass

class GraphRecording:
    """
    Recorded work of a stream, from graph_end.
    """
    @property
    def kernel_count(self) -> int: ...
    @property
    def node_count(self) -> int: ...

class Graph:
    """
    Recorded work that is launched in one call. The buffers it was recorded with
    must outlive it. Not for several threads at once.
    """
    def __init__(self, recording: GraphRecording) -> None:
        """
        Blocks while the driver prepares the work. Raises DriverError.
        """
    def close(self) -> None:
        """
        Releases it. May be called twice.
        """
    def launch(self, stream: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Queues the work on a stream. Does not block. Raises DriverError.
        """
    def update(self, recording: GraphRecording) -> str:
        """
        Takes over the addresses, sizes and arguments of a recording of the same sequence of
        work, for later launches. Returns '', or why it cannot, when nothing changed.
        """

def binary_mask(
    scores: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    is_logit: bool,
    threshold: typing.SupportsFloat | typing.SupportsIndex,
    x0: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
    wx: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    y0: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
    wy: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
) -> tuple[numpy.typing.NDArray[numpy.uint8], numpy.typing.NDArray[numpy.float32]]:
    """
    The same of one class, float32 [1, h, w], whose sample, or the logistic function of it, is
    a probability p: mask uint8 [H, W] is p >= threshold, and the confidence float32 [H, W] p
    there, 1 - p elsewhere. Releases the GIL.
    """

def class_mask(
    scores: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    values: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None,
    x0: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
    wx: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    y0: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
    wy: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
) -> tuple[numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], numpy.typing.NDArray[numpy.float32]]:
    """
    The class of each pixel of an image from scores float32 [classes, h, w]: those are sampled
    bilinearly, and compared. Column j lies between columns x0[j] and x0[j] + 1 of the grid,
    with weight wx[j] on the latter; rows likewise. A negative x0 or y0, which only the ends
    may have, is outside: class 0, confidence 0. Ties go to the lower class.
    Returns (mask [H, W] uint8, or uint16 above 256 classes; float32 [H, W], the sample of
    `values`, of the shape of scores, of that class; None: of the scores). Releases the GIL.
    """

def cpu_level() -> str:
    """
    The level in use: the best, or the environment variable VISIONRT_CPU_LEVEL where it names one of cpu_levels().
    """

def cpu_levels() -> list[str]:
    """
    Instruction-set levels that this build has and this processor runs, slowest first.
    """

def cuda_decode_ssd(
    box_codes: typing.SupportsInt | typing.SupportsIndex,
    scores: typing.SupportsInt | typing.SupportsIndex,
    anchor_boxes: typing.SupportsInt | typing.SupportsIndex,
    batch: typing.SupportsInt | typing.SupportsIndex,
    anchors: typing.SupportsInt | typing.SupportsIndex,
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    input_hw: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"
    ],
    score_threshold: typing.SupportsFloat | typing.SupportsIndex,
    candidates: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(5)"
    ],
    capacity: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    variances: typing.Annotated[
        collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(4)"
    ] = [10.0, 10.0, 5.0, 5.0],
    activation: str = "none",
    background: typing.SupportsInt | typing.SupportsIndex = 0,
    multi_label: bool = False,
    is_float16: bool = False,
    code: str = "yxhw",
) -> None:
    """
    Queues decode_ssd of a batch on the stream. box_codes [batch, anchors, 4] and scores
    [batch, anchors, num_classes] per image, anchor_boxes [anchors, 4] shared; candidates as
    cuda_decode_yolo.
    """

def cuda_decode_yolo(
    output: typing.SupportsInt | typing.SupportsIndex,
    batch: typing.SupportsInt | typing.SupportsIndex,
    form: str,
    anchors: typing.SupportsInt | typing.SupportsIndex,
    columns: typing.SupportsInt | typing.SupportsIndex,
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    score_threshold: typing.SupportsFloat | typing.SupportsIndex,
    candidates: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(5)"
    ],
    capacity: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    multi_label: bool = False,
    is_float16: bool = False,
) -> None:
    """
    Queues decode_yolo of a batch on the stream. output: device address of float32 or float16
    [batch, ...] in the form's layout. candidates: addresses of boxes [batch, capacity, 4], scores,
    class_ids, source_index [batch, capacity] and counts [batch]; the order is arbitrary,
    source_index = anchor * num_classes + class. Does not block. Raises DriverError.
    """

def cuda_decode_yolox(
    output: typing.SupportsInt | typing.SupportsIndex,
    batch: typing.SupportsInt | typing.SupportsIndex,
    input_hw: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"
    ],
    anchors: typing.SupportsInt | typing.SupportsIndex,
    columns: typing.SupportsInt | typing.SupportsIndex,
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    score_threshold: typing.SupportsFloat | typing.SupportsIndex,
    candidates: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(5)"
    ],
    capacity: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    strides: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [8, 16, 32],
    multi_label: bool = False,
    is_float16: bool = False,
) -> None:
    """
    Queues decode_yolox of a batch on the stream; arguments as cuda_decode_yolo.
    """

def cuda_instance_masks(
    prototypes: typing.SupportsInt | typing.SupportsIndex,
    shape: tuple[
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
    ],
    coefficients: typing.SupportsInt | typing.SupportsIndex,
    boxes: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    detections: typing.SupportsInt | typing.SupportsIndex,
    size: tuple[
        typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
    ],
    scale: tuple[
        typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex
    ],
    shift: tuple[
        typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex
    ],
    masks: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    threshold: typing.SupportsFloat | typing.SupportsIndex = 0.0,
) -> None:
    """
    Queues the same work on the stream; device addresses are integers, 0 is none. shape is
    (channels, h, w) of the prototypes; count int32 [1] on the device, of the detections used.
    Writes masks uint8 [detections, height, width]. Does not block. Raises DriverError when
    the driver is missing or refuses.
    """

def cuda_nms(
    boxes: typing.SupportsInt | typing.SupportsIndex,
    scores: typing.SupportsInt | typing.SupportsIndex,
    class_ids: typing.SupportsInt | typing.SupportsIndex,
    source_index: typing.SupportsInt | typing.SupportsIndex,
    counts: typing.SupportsInt | typing.SupportsIndex,
    batch: typing.SupportsInt | typing.SupportsIndex,
    capacity: typing.SupportsInt | typing.SupportsIndex,
    iou_threshold: typing.SupportsFloat | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    workspace_bytes: typing.SupportsInt | typing.SupportsIndex,
    kept: typing.SupportsInt | typing.SupportsIndex,
    kept_counts: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    detections: typing.SupportsInt | typing.SupportsIndex = 0,
    class_aware: bool = True,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
    finite_only: bool = False,
    classes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
    geometries: collections.abc.Sequence[Geometry] = [],
    extra: tuple[
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
    ]
    | None = None,
) -> None:
    """
    Queues NMS of a batch on the stream; device addresses are integers, 0 is none. boxes
    float32 [batch, capacity, 4], scores, class_ids, source_index [batch, capacity], counts
    int32 [batch]. Writes kept int32 [batch, max_det] (then -1), kept_counts int32 [batch],
    and detections [batch, max_det] of 32 bytes: x1 y1 x2 y2 score class float32, class_id
    source_index int32; zeros after the last. finite_only leaves out boxes with infinities,
    classes all others (each below max_filter_classes). geometries, one for each image, map
    the boxes of detections to the images. extra: (address, image stride, anchor stride,
    column stride, classes, columns, out) of more columns of the output, strides in
    elements: those of the kept go to out, float32 [batch, max_det, columns].
    Does not block. Raises DriverError when the driver is missing or refuses.
    """

def cuda_nms_rotated(
    boxes: typing.SupportsInt | typing.SupportsIndex,
    angles: typing.SupportsInt | typing.SupportsIndex,
    image_stride: typing.SupportsInt | typing.SupportsIndex,
    anchor_stride: typing.SupportsInt | typing.SupportsIndex,
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    scores: typing.SupportsInt | typing.SupportsIndex,
    class_ids: typing.SupportsInt | typing.SupportsIndex,
    source_index: typing.SupportsInt | typing.SupportsIndex,
    counts: typing.SupportsInt | typing.SupportsIndex,
    batch: typing.SupportsInt | typing.SupportsIndex,
    capacity: typing.SupportsInt | typing.SupportsIndex,
    iou_threshold: typing.SupportsFloat | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    workspace_bytes: typing.SupportsInt | typing.SupportsIndex,
    kept: typing.SupportsInt | typing.SupportsIndex,
    kept_counts: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    detections: typing.SupportsInt | typing.SupportsIndex = 0,
    class_aware: bool = True,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
    finite_only: bool = False,
    classes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
) -> None:
    """
    Queues nms_rotated of a batch on the stream; arguments as cuda_nms. The angle of a
    candidate with source index s of image i is the float32 at angles + 4 * (i * image_stride
    + s / num_classes * anchor_stride). detections are the upright boxes, with the angle in the
    place of the class as a number.
    """

def cuda_nms_rotated_workspace_bytes(
    batch: typing.SupportsInt | typing.SupportsIndex,
    capacity: typing.SupportsInt | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
) -> int:
    """
    Bytes of 256-byte aligned device memory that cuda_nms_rotated needs for these sizes.
    """

def cuda_nms_workspace_bytes(
    batch: typing.SupportsInt | typing.SupportsIndex,
    capacity: typing.SupportsInt | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
) -> int:
    """
    Bytes of 256-byte aligned device memory that cuda_nms needs for these sizes.
    """

def decode_capacity(
    anchors: typing.SupportsInt | typing.SupportsIndex,
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    multi_label: bool = False,
) -> int:
    """
    Candidates an image can give: the least capacity the cuda_decode functions take.
    """

def decode_ssd(
    box_codes: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    scores: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    anchors: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    input_hw: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"
    ],
    score_threshold: typing.SupportsFloat | typing.SupportsIndex,
    variances: typing.Annotated[
        collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(4)"
    ] = [10.0, 10.0, 5.0, 5.0],
    activation: str = "none",
    background: typing.SupportsInt | typing.SupportsIndex = 0,
    multi_label: bool = False,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 30000,
    code: str = "yxhw",
) -> tuple[
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.int32],
    numpy.typing.NDArray[numpy.int32],
]:
    """
    Candidates of an SSD head: box_codes float32 [N, 4] (ty, tx, th, tw, or with code "xywh"
    tx, ty, tw, th), scores float32 [N, C], anchors float32 [N, 4] (cy, cx, h, w) normalised;
    variances for y, x, h, w. Class ids are the columns of scores; background -1: none.
    Returns as decode_yolo.
    """

def decode_yolo(
    output: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    form: str,
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    score_threshold: typing.SupportsFloat | typing.SupportsIndex,
    multi_label: bool = False,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 30000,
) -> tuple[
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.int32],
    numpy.typing.NDArray[numpy.int32],
]:
    """
    Candidates of a YOLO head. form: "v8" ([4+C, N]), "v8_rows" ([N, 4+C]) or "v5"
    ([N, 5+C] with objectness); columns past the classes are skipped. Returns boxes float32
    [k, 4] xyxy in input pixels, scores float32 [k], class_ids int32 [k], anchors int32 [k].
    """

def decode_yolox(
    output: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    input_hw: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"
    ],
    num_classes: typing.SupportsInt | typing.SupportsIndex,
    score_threshold: typing.SupportsFloat | typing.SupportsIndex,
    strides: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [8, 16, 32],
    multi_label: bool = False,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 30000,
) -> tuple[
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.int32],
    numpy.typing.NDArray[numpy.int32],
]:
    """
    Candidates of a YOLOX head, output float32 [N, 5+C]. Returns as decode_yolo.
    """

def dlpack_capsule(
    owner: typing.Any,
    address: typing.SupportsInt | typing.SupportsIndex,
    gpu: typing.SupportsInt | typing.SupportsIndex,
    shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    strides: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    kind: str,
    versioned: bool,
) -> typing_extensions.CapsuleType:
    """
    A DLPack capsule over device memory of float32 or int32, strides in elements. It keeps
    `owner` until the consumer, in any thread, or the capsule itself lets go. versioned: of
    DLPack 1.0, else of the layout before. Does not order any work.
    """

def driver_problem() -> str:
    """
    Why the NVIDIA driver cannot be used, in words; empty when it can.
    """

def embedded_fatbins() -> list[tuple[str, int]]:
    """
    Name and size in bytes of every embedded fatbin.
    """

def graph_begin(stream: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Starts to record what this thread queues on a stream (an integer handle) instead of
    running it. Its context must be current, here and in every call on graphs. Until
    graph_end this thread must not allocate, free or synchronise. Raises DriverError.
    """

def graph_discard(stream: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Ends and discards a recording, after an error. Does nothing where there is none.
    """

def graph_end(stream: typing.SupportsInt | typing.SupportsIndex) -> GraphRecording:
    """
    Ends a recording. Raises DriverError when a call that is not allowed in one spoiled it;
    the stream is usable again in either case.
    """

def has_kernels() -> bool:
    """
    True when this build holds CUDA kernels.
    """

def instance_masks(
    prototypes: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    coefficients: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    boxes: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    size: tuple[
        typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
    ],
    scale: tuple[
        typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex
    ],
    shift: tuple[
        typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex
    ] = (0.0, 0.0),
    threshold: typing.SupportsFloat | typing.SupportsIndex = 0.0,
) -> numpy.typing.NDArray[numpy.uint8]:
    """
    Masks of one image on the CPU, uint8 [k, height, width] of 0 and 1, size = (height, width).
    prototypes float32 [channels, h, w], coefficients float32 [k, channels], boxes float32
    [k, 4] xyxy in pixels of the result. scale and shift are (y, x): prototype = pixel * scale
    + shift. 1 where the interpolated sum exceeds the threshold, in the box. Releases the GIL.
    """

def nms(
    boxes: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    scores: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    class_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None,
    iou_threshold: typing.SupportsFloat | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    source_index: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None = None,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
) -> numpy.typing.NDArray[numpy.int32]:
    """
    Exact greedy NMS of one image on the CPU. boxes float32 [n, 4] xyxy, scores float32 [n],
    class_ids int32 [n] or None (agnostic). Returns int32 [k], best first. Ties go to the
    lower source_index (default: the position). Releases the GIL.
    """

def nms_batched(
    boxes: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    scores: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    class_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None,
    counts: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None,
    iou_threshold: typing.SupportsFloat | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    source_index: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None = None,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]:
    """
    NMS of a batch on the CPU: boxes float32 [batch, n, 4], of which counts[i] are read.
    Returns (int32 [batch, max_det] padded with -1, int32 [batch]). Releases the GIL.
    """

def nms_rotated(
    boxes: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    angles: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    scores: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    class_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None,
    iou_threshold: typing.SupportsFloat | typing.SupportsIndex,
    max_det: typing.SupportsInt | typing.SupportsIndex,
    max_candidates: typing.SupportsInt | typing.SupportsIndex = 2147483647,
) -> numpy.typing.NDArray[numpy.int32]:
    """
    Exact greedy NMS of rotated boxes of one image on the CPU, by the IoU of polygons. boxes
    float32 [n, 4] xyxy before they are turned about their centres by angles float32 [n], in
    radians; otherwise as nms. Releases the GIL.
    """

def rotated_shared_areas(
    a: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    b: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
) -> numpy.typing.NDArray[numpy.float32]:
    """
    Areas that pairs of rotated boxes share, float32 [n]; boxes float32 [n, 5], xyxy and an
    angle as in nms_rotated.
    """

def use_cpu_level(name: str) -> None:
    """
    Changes the level of the whole process. Raises ValueError when it is not there.
    """

def wait_for_stream(
    waiter: typing.SupportsInt | typing.SupportsIndex,
    other: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Lets later work on one stream start only after what is queued on another now. Does not
    block. Raises DriverError.
    """

max_filter_classes: int = 4096
