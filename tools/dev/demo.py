"""The main job on real input: build engines, run them on photos, draw what they see, time them.

``make demo`` runs it. It calls the two command line tools as a user would, and prints each command.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DATA = Path("tests/data")
MODELS = DATA / "models"
PHOTOS = DATA / "images"
CALIBRATION = PHOTOS / "calib"
LABELLED = PHOTOS / "labelled"

DETECT_ON = (
    PHOTOS / "astronaut.png",
    PHOTOS / "chelsea.png",
    LABELLED / "explore_farm_animals__cow.webp",
)
CLASSIFY = (PHOTOS / "coffee.png",)


def command(*parts: object) -> str:
    """Run a command line, echo it, return what it printed. Stops the demo when it fails."""
    words = [str(part) for part in parts]
    print(f"\n$ {shlex.join(words)}", flush=True)
    words[0] = str(Path(sys.executable).with_name(words[0]))
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.stdout.write(done.stdout)
        sys.exit(done.returncode)
    return done.stdout


def build(model: str, output: Path, *flags: object) -> None:
    """Build one engine; print its precision, agreement and plan sizes."""
    out = command("trtconvert", "build", MODELS / f"{model}.onnx", "-o", output, *flags, "--json")
    report: dict[str, Any] = json.loads(out)
    agreement = report["verification"]
    print(
        f"{report['precision']}: {agreement['metric']} {agreement['agreement']:.3f} against FP32 "
        f"on {agreement['images']} photos"
    )
    for target in report["targets"]:
        if target["backend"] != "cpu":
            print(
                f"  {target['target']:<10} plan {target['plan_bytes'] / 1e6:6.1f} MB, "
                f"built in {target['build_seconds']:.1f} s"
            )


def predict(engine: Path, photos: Sequence[Path], output: Path, *flags: object) -> None:
    """Draw what a model sees."""
    sys.stdout.write(command("visionrt", "predict", *photos, "-m", engine, "-o", output, *flags))


def main() -> None:
    """Run every step."""
    parser = argparse.ArgumentParser(description="Run the main job on real input.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    output: Path = parser.parse_args().output
    (ROOT / output).mkdir(parents=True, exist_ok=True)
    detector = output / "detector.engine"
    classifier = output / "classifier.engine"
    segmenter = output / "segmenter.engine"
    pose = output / "pose.engine"

    rtx = ("--target", "rtx:sm86,sm89,sm120", "--target", "cpu")
    build(
        "ssd_mobilenet_v2_coco",
        detector,
        *("--task", "detect", "--preprocess", "tf", "--labels", "coco91"),
        *("--precision", "auto", "--max-drop", "5%"),
        *("--calib", CALIBRATION, "--calib-images", 24, "--images", LABELLED),
        *rtx,
    )
    predict(detector, DETECT_ON, output / "detections", "--confidence", "0.6")

    build(
        "efficientnet_lite0",
        classifier,
        *("--preprocess", "imagenet,mean=127,std=128", "--labels", "imagenet"),
        *("--precision", "fp16", "--images", LABELLED),
        *("--target", "rtx:sm86", "--target", "cpu"),
    )
    predict(classifier, CLASSIFY, output / "classes")

    build(
        "selfie_segmentation",
        segmenter,
        *("--task", "segment", "--preprocess", "none,std=255"),
        *("--labels", DATA / "labels_selfie.txt", "--precision", "fp16", "--images", LABELLED),
        *("--target", "rtx:sm86", "--target", "cpu"),
    )
    predict(segmenter, [PHOTOS / "astronaut.png"], output / "masks")

    build(
        "movenet_lightning",
        pose,
        *("--task", "keypoints", "--preprocess", "none,resize=letterbox,pad_value=0"),
        *("--precision", "fp32", "--images", LABELLED, "--target", "cpu"),
    )
    predict(pose, [PHOTOS / "astronaut.png"], output / "poses")

    print("\nLatency on this machine's CPU (the plans need an NVIDIA GPU):")
    for engine in (detector, classifier, segmenter, pose):
        text = command("visionrt", "bench", engine, "--duration", "2", "--json")
        print(_row(engine, json.loads(text)))
    pictures = sorted((ROOT / output).glob("*/*.jpg"))
    overview = ROOT / output / "overview.jpg"
    contact_sheet(pictures).save(overview, quality=88)
    print("\nPictures:")
    for picture in [*pictures, overview]:
        print(f"  {picture.relative_to(ROOT) if picture.is_relative_to(ROOT) else picture}")


def contact_sheet(paths: Sequence[Path], height: int = 300, columns: int = 3) -> Image.Image:
    """The pictures in rows, each scaled to ``height`` pixels."""
    gap = 6
    rows: list[list[Image.Image]] = []
    for start in range(0, len(paths), columns):
        row = []
        for path in paths[start : start + columns]:
            with Image.open(path) as picture:
                width = round(picture.width * height / picture.height)
                row.append(picture.convert("RGB").resize((width, height)))
        rows.append(row)
    widths = [sum(p.width + gap for p in row) - gap for row in rows]
    sheet = Image.new("RGB", (max(widths), len(rows) * (height + gap) - gap), "white")
    for y, row in enumerate(rows):
        x = 0
        for picture in row:
            sheet.paste(picture, (x, y * (height + gap)))
            x += picture.width + gap
    return sheet


def _row(engine: Path, body: dict[str, Any]) -> str:
    latency, stages = body["latency_ms"], body["stages_ms"]
    parts = "  ".join(f"{name} {value:.2f}" for name, value in stages.items())
    return (
        f"{engine.name:<18} median {latency['median']:6.2f} ms  p99 {latency['p99']:6.2f} ms  "
        f"{body['images_per_second']:6.1f} images/s   ({parts})"
    )


if __name__ == "__main__":
    main()
