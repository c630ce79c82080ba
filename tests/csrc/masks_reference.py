"""Instance masks in NumPy float64, and cases for them; shares no code with the extension."""

from __future__ import annotations

from typing import Any

import numpy as np

F32 = np.float32
Array = np.ndarray[Any, Any]
Case = dict[str, Any]


def sample_positions(pixels: int, scale: float, shift: float, side: int) -> Array:
    """Where window pixels' centres lie, counted in prototype centres and kept among them."""
    return np.clip((np.arange(pixels) + 0.5) * scale + shift - 0.5, 0, side - 1)


def interpolate(planes: Array, positions: Array, axis: int) -> Array:
    """Linear interpolation along an axis by a matrix of weights."""
    side = planes.shape[axis]
    distance = np.abs(positions[:, None] - np.arange(side)[None, :])
    weights = np.maximum(1 - distance, 0)
    return np.moveaxis(np.tensordot(weights, planes, axes=(1, axis)), 0, axis)


def inside(boxes: Array, size: tuple[int, int]) -> Array:
    """True where a pixel's centre lies in its box."""
    x1, y1, x2, y2 = boxes.astype(np.float64).T[:, :, None]
    y, x = (np.arange(side)[None, :] + 0.5 for side in size)
    rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
    whole = (x1 < x2) & (y1 < y2)
    return (rows & whole)[:, :, None] & columns[:, None, :]


def masks(case: Case) -> tuple[Array, Array]:
    """The masks, and where float32 must agree: farther from the threshold than its rounding."""
    prototypes = case["prototypes"].astype(np.float64)
    coefficients = case["coefficients"].astype(np.float64)
    values, sizes = (
        np.einsum("kc,chw->khw", c, p)
        for c, p in ((coefficients, prototypes), (np.abs(coefficients), np.abs(prototypes)))
    )
    for axis in (0, 1):
        side = prototypes.shape[1 + axis]
        at = sample_positions(case["size"][axis], case["scale"][axis], case["shift"][axis], side)
        values = interpolate(values, at, 1 + axis)
        # What a tap may be off by, wherever between two it lies.
        near = np.stack([np.floor(at), np.ceil(at)]).astype(int)
        sizes = np.take(sizes, near, axis=1 + axis).max(axis=1 + axis)
    # Unit roundoff 2^-24: `channels` products and sums, and per axis a weight and three operations
    # on values of up to twice the size.
    bound = (prototypes.shape[0] + 1 + 2 * 8) * 2.0**-24 * sizes
    within = inside(case["boxes"], case["size"])
    decided = ~within | (np.abs(values - case["threshold"]) > bound)
    return (within & (values > case["threshold"])).astype(np.uint8), decided


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Array:
    """Boxes in and around a window: some empty, reversed, huge, on pixel centres, or NaN."""
    h, w = size
    corners = rng.uniform(-0.3, 1.3, (count, 2, 2)) * (w, h)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(F32)
    odd = rng.integers(0, 8, count)
    boxes[odd == 0] = np.round(boxes[odd == 0]) + F32(0.5)
    boxes[odd == 1] = boxes[odd == 1][:, [2, 3, 0, 1]]
    boxes[odd == 2, 2] = boxes[odd == 2, 0]
    boxes[odd == 3] = (-3e38, -np.inf, np.inf, 3e38)
    if count:
        boxes[odd == 4, rng.integers(0, 4)] = np.nan
    return boxes


def random_case(rng: np.random.Generator, longest: int = 48) -> Case:
    """Any sizes, reductions and enlargements, shifts out of the prototypes."""
    channels, count = int(rng.choice([1, 2, 7, 32])), int(rng.choice([0, 1, 2, 5]))
    prototype_h, prototype_w = (int(v) for v in rng.choice([1, 2, 3, 8, 13, 20], 2))
    size = (int(rng.integers(1, longest)), int(rng.choice([1, 15, 16, 17, 32, longest])))
    scale = tuple(float(v) for v in rng.choice([0.25, 0.3, 1.0, 1 / 3, 1.7], 2))
    return {
        "prototypes": rng.normal(size=(channels, prototype_h, prototype_w)).astype(F32),
        "coefficients": rng.normal(size=(count, channels)).astype(F32),
        "boxes": random_boxes(rng, count, size),
        "size": size,
        "scale": scale,
        "shift": tuple(float(v) for v in rng.choice([0.0, -1.5, 0.37], 2)),
        "threshold": float(rng.choice([0.0, 0.5, -1.0])),
    }
