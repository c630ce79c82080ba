"""The ``keypoints`` head on outputs made by hand."""

from __future__ import annotations

import numpy as np
from head_calls import SIZE, decode, frame_of, letterboxed, recipe_of

RNG = np.random.default_rng(5)


def test_keypoints() -> None:
    recipe = recipe_of("keypoints")
    frame = frame_of(recipe, 120, 300)
    poses = np.zeros((1, 2, 17, 3), np.float32)
    truth = RNG.uniform((0, 0), (300, 120), (17, 2))
    tensor = letterboxed(frame, np.tile(truth, 2))[:, :2]
    poses[0, 0, :, 0], poses[0, 0, :, 1] = tensor[:, 1] / SIZE[0], tensor[:, 0] / SIZE[1]
    poses[0, 0, :, 2] = 0.2
    poses[0, 0, 4, 2] = 0.3
    poses[0, 1, :, 2] = 0.1
    (result,) = decode(recipe, {"y": poses}, frame)
    assert result.keypoints.shape == (1, 17, 3)
    np.testing.assert_allclose(result.keypoints[0, :, :2], truth, atol=1e-3)
    np.testing.assert_array_equal(result.keypoints[0, :, 2], poses[0, 0, :, 2])
    assert result.names[0] == "nose"
    assert result.names[9] == "left wrist"
    assert len(result.skeleton) == 16
    assert len(decode(recipe, {"y": poses}, frame, confidence=0.05)[0]) == 2
    assert decode(recipe, {"y": poses}, frame, confidence=0.5)[0].keypoints.shape == (0, 17, 3)


def test_keypoints_with_names_and_a_skeleton_of_their_own() -> None:
    poses = {"y": np.ones((1, 1, 3, 3), np.float32)}
    (bare,) = decode(recipe_of("keypoints"), poses)
    assert (bare.names, bare.skeleton) == ((), ())
    recipe = recipe_of("keypoints", names=["a", "b", "c"], skeleton=[[0, 2]])
    (named,) = decode(recipe, poses)
    assert (named.names, named.skeleton) == (("a", "b", "c"), ((0, 2),))
