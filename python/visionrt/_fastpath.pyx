# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, autotestdict=False
"""Per-call glue that is too slow in plain Python, and the loops NumPy has no word for.

Everything here is on the host. Loops run without the GIL.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from libc.stdint cimport int32_t
from libc.string cimport memcpy

import numpy as np

cdef extern from "decode/exp_sum.h" nogil:
    double visionrt_exp(double x)
    double visionrt_exp_sum(const float* values, size_t count, double peak)

cdef object _contiguous = np.ascontiguousarray
cdef object _empty = np.empty
cdef object _int32 = np.dtype(np.int32)
cdef object _float32 = np.dtype(np.float32)


def image_shape(image):
    """(height, width, channels, is_packed) of a uint8 image; None when it is none.

    An image is a uint8 buffer of shape (h, w) or (h, w, 1 | 3 | 4), no side 0. It is packed when
    the pixels of a row follow each other in memory and rows do not run backwards.
    """
    cdef Py_buffer view
    cdef Py_ssize_t channels
    cdef bint is_image, is_packed
    if not PyObject_CheckBuffer(image):
        return None
    try:
        PyObject_GetBuffer(image, &view, PyBUF_STRIDES | PyBUF_FORMAT)
    except (ValueError, BufferError):  # a dtype the protocol cannot express: datetime64, ...
        return None
    try:
        is_image = (
            view.itemsize == 1
            and (view.format == NULL or (view.format[0] == b"B" and view.format[1] == 0))
            and (view.ndim == 2 or view.ndim == 3)
            and view.len > 0
        )
        if not is_image:
            return None
        channels = view.shape[2] if view.ndim == 3 else 1
        if channels != 1 and channels != 3 and channels != 4:
            return None
        is_packed = (
            (channels == 1 or view.strides[2] == 1)
            and view.strides[1] == channels
            and view.strides[0] >= view.shape[1] * channels
        )
        return view.shape[0], view.shape[1], channels, is_packed
    finally:
        PyBuffer_Release(&view)


def softmax_top_k(logits not None, Py_ssize_t k, Py_ssize_t offset=0, bint softmax=True,
                  const unsigned char[::1] allowed=None):
    """The k largest logits from index ``offset`` on, and a copy of all of them from there on.

    Returns (class_id int32 [k], value float32 [k], logits float32 [n - offset]). Class ids count
    from ``offset``; ties go to the lower id; NaN is never taken. The value is the softmax over
    *all* logits, in double, or the logit itself. ``allowed`` is one byte per class id: 0 leaves the
    class out. Costs n + (values taken on the way) * k steps: k is meant small.

    Reads ``logits``, float32 of n values in any shape, by the buffer protocol: a typed memoryview
    of each array took longer than the loops. Where they are not C-contiguous, a copy is read.
    """
    cdef Py_buffer view, ids_view, values_view, copy_view
    cdef Py_ssize_t n, taken
    cdef const unsigned char* mask = NULL
    try:
        PyObject_GetBuffer(logits, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    except (ValueError, BufferError):
        logits = _contiguous(logits)
        PyObject_GetBuffer(logits, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    try:
        if view.format == NULL or view.format[0] != b"f" or view.format[1] != 0:
            raise ValueError("logits: float32")
        n = view.len // <Py_ssize_t>sizeof(float)
        if offset < 0 or offset > n:
            raise ValueError(f"offset {offset} of {n} logits")
        if allowed is not None and allowed.shape[0] != n - offset:
            raise ValueError(f"{allowed.shape[0]} bytes for {n - offset} classes")
        k = max(0, min(k, n - offset))
        ids, values, copy = _empty(k, _int32), _empty(k, _float32), _empty(n - offset, _float32)
        PyObject_GetBuffer(ids, &ids_view, PyBUF_SIMPLE)
        PyObject_GetBuffer(values, &values_view, PyBUF_SIMPLE)
        PyObject_GetBuffer(copy, &copy_view, PyBUF_SIMPLE)
        # NumPy keeps the memory of an array, released or not, as long as the array lives.
        PyBuffer_Release(&ids_view)
        PyBuffer_Release(&values_view)
        PyBuffer_Release(&copy_view)
        if allowed is not None and n > offset:
            mask = &allowed[0]
        with nogil:
            memcpy(copy_view.buf, <const float*>view.buf + offset, copy_view.len)
            taken = _take_best(<const float*>view.buf, n, k, offset, softmax,
                               mask, <int32_t*>ids_view.buf, <float*>values_view.buf)
    finally:
        PyBuffer_Release(&view)
    return (ids, values, copy) if taken == k else (ids[:taken], values[:taken], copy)


cdef Py_ssize_t _take_best(const float* logits, Py_ssize_t n, Py_ssize_t k, Py_ssize_t offset,
                           bint softmax, const unsigned char* allowed, int32_t* ids,
                           float* values) noexcept nogil:
    """Fills ``ids`` and ``values``, as of softmax_top_k; returns how many of the k there were."""
    cdef Py_ssize_t i, j, taken = 0
    cdef double peak, total = 0.0
    cdef float value
    if k == 0:
        return 0
    for i in range(offset, n):
        value = logits[i]
        if value != value or (allowed != NULL and not allowed[i - offset]):
            continue
        if taken == k and not value > values[k - 1]:
            continue
        j = taken if taken < k else k - 1
        while j > 0 and value > values[j - 1]:
            values[j] = values[j - 1]
            ids[j] = ids[j - 1]
            j -= 1
        values[j] = value
        ids[j] = <int32_t>(i - offset)
        if taken < k:
            taken += 1
    if softmax and taken > 0:
        peak = values[0]
        for i in range(n):
            if logits[i] > peak:
                peak = logits[i]
        total = visionrt_exp_sum(logits, n, peak)
        for j in range(taken):
            # inf - inf would be NaN; an infinite logit has all the probability.
            values[j] = <float>((1.0 if values[j] == peak else visionrt_exp(values[j] - peak))
                                / total)
    return taken
