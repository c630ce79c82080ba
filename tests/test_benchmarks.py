"""The harness of the comparison of int8 conversions: what it counts, splits and reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from measured_child import run_measured
from peers.environments import make_environments, python_for
from peers.protocol import Job, read_job
from precision_judge import Judge, int8_share, objections, shifts_of_seen
from precision_methods import METHODS, PeerError, run_method
from precision_report import report
from precision_subjects import read_subject, split_photos
from visionrt.errors import UsageError
from visionrt.results import Keypoints

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20


def quantized_conv(
    *, activation_type: int = TensorProto.INT8, zero_point: int = 0
) -> onnx.ModelProto:
    """A convolution between Q/DQ pairs, and a float one of a third of its FLOPs."""
    rng = np.random.default_rng(0)
    activation = helper.tensor_dtype_to_np_dtype(activation_type)
    constants = {
        "scale": np.float32(0.1),
        "zero": np.array(zero_point, activation),
        "weight": rng.integers(-127, 127, (3, 2, 3, 3)).astype(np.int8),
        "weight_zero": np.array(0, np.int8),
        "float_weight": rng.random((1, 3, 1, 3), np.float32).repeat(2, axis=2),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "weight_zero"], ["w"]),
        helper.make_node("Conv", ["dq", "w"], ["y"], name="quantized", pads=[1] * 4),
        helper.make_node("Conv", ["y", "float_weight"], ["z"], name="float"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 2, 4, 5]), ("z", [1, 1, 3, 3]))
    ]
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "pair", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_child_s_memory_is_its_own_and_its_cpu_time_is_counted() -> None:
    ballast = np.ones(300 * MIB, np.uint8)
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint('done')"
    small = run_measured([sys.executable, "-S", "-c", code])
    assert small.stdout == "done\n"
    assert small.returncode == 0
    assert 0.3 <= small.cpu_seconds < 2
    # What this process holds must not show, and what the child holds must.
    assert small.peak_rss_bytes < 100 * MIB < ballast.nbytes
    large = run_measured([sys.executable, "-S", "-c", f"x = b'1' * {150 * MIB}"])
    assert large.peak_rss_bytes > 150 * MIB


def test_a_child_that_fails_hangs_or_is_missing_is_told_apart() -> None:
    failed = run_measured([sys.executable, "-c", "import sys; sys.exit(3)"])
    assert failed.returncode == 3
    with pytest.raises(subprocess.TimeoutExpired):
        run_measured([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5)
    with pytest.raises(OSError, match="not started"):
        run_measured(["/no/such/program"])


def test_no_photo_is_both_calibrated_and_judged_on() -> None:
    photos = split_photos(48)
    assert len(photos.calibration) == 48
    assert len(photos.held_out) == 43 + 72
    assert not set(photos.calibration) & set(photos.held_out)
    assert len(split_photos(48, limit=7).held_out) == 7
    with pytest.raises(UsageError):
        split_photos(121)


def test_int8_share_counts_flops() -> None:
    # 4·5 outputs · 3 channels · 2·3·3 against 3·3 outputs · 1 channel · 3·2·3.
    assert int8_share(quantized_conv()) == pytest.approx(1080 / (1080 + 162))


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (quantized_conv(), []),
        (quantized_conv(activation_type=TensorProto.UINT8), ["uint8"]),
        (quantized_conv(zero_point=3), ["zero point"]),
    ],
    ids=["int8", "uint8", "zero point"],
)
def test_objections_name_what_tensorrt_does_not_take(
    graph: onnx.ModelProto, expected: list[str]
) -> None:
    assert objections(graph) == expected


def test_a_keypoint_that_the_candidate_no_longer_sees_still_counts() -> None:
    def pose(points: list[list[float]]) -> Keypoints:
        array = np.array([points], np.float32)
        return Keypoints(image_hw=(50, 100), names=("a", "b"), keypoints=array)

    reference = pose([[10, 10, 0.9], [20, 20, 0.1]])
    candidate = pose([[13, 14, 0.0], [90, 20, 0.9]])
    assert shifts_of_seen(reference, candidate, 0.25) == pytest.approx([0.05])


def test_a_peer_without_an_environment_has_no_python(tmp_path: Path) -> None:
    assert python_for("nncf", tmp_path) is None
    assert python_for("onnxruntime", tmp_path) == Path(sys.executable)
    assert make_environments(tmp_path, ["ours"]) == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = Job(tmp_path / "m", tmp_path / "c", tmp_path / "o", {"a": None}, {}, (Path("p"),))
    (tmp_path / "job.json").write_text(json.dumps(job.to_json()))
    assert read_job(tmp_path / "job.json") == job


def test_a_runner_s_failure_is_reported_by_its_last_line(tmp_path: Path) -> None:
    job = Job(tmp_path / "missing.onnx", tmp_path, tmp_path / "out.onnx", {}, {}, (Path("p"),))
    with pytest.raises(PeerError, match=r"missing\.onnx"):
        run_method(Path(sys.executable), METHODS[0], job, cores=1, timeout_s=60)


@pytest.mark.parametrize(
    ("name", "figure", "expected"),
    [("selfie_segmentation", "mean_iou", 1.0), ("movenet_lightning", "shift", 0.0)],
)
def test_the_original_agrees_with_itself(name: str, figure: str, expected: float) -> None:
    subject = read_subject(name)
    judge = Judge(subject, split_photos(48, limit=3).held_out)
    assert judge.reference["images"] == 3
    # One side runs with ONNX Runtime's optimizations, which may move a pixel at an edge.
    assert judge(subject.original)[figure] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_small_run_measures_ours_and_a_peer_and_names_what_is_missing(tmp_path: Path) -> None:
    results = tmp_path / "precision.json"
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "precision.py"), "--json", str(results)),
            *("--models", "selfie_segmentation", "--methods", "default,convolutions: min-max"),
            *("--environments", str(tmp_path), "--photos", "2", "--calibration", "2"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = json.loads(results.read_text())["lines"]
    found = {(line["peer"], line["method"]): line for line in lines}
    for key in (("ours", "default"), ("onnxruntime", "convolutions: min-max")):
        assert found[key]["status"] == "measured"
        assert found[key]["figures"]["agreement"] > 0.8
        assert 0 < found[key]["int8_share"] <= 1
        assert found[key]["cpu_seconds"] > 0.1
        assert found[key]["peak_rss_bytes"] > 30 * MIB
        assert found[key]["objections"] == []
    assert found["nncf", "default"]["status"] == "not run"
    assert "nncf  " in done.stdout
    assert "not run: no environment for nncf" in done.stdout
    assert "not asked for: ours, no layer raised; onnxruntime, all operators" in done.stdout
    assert report(json.loads(results.read_text())) in done.stdout
