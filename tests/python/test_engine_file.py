"""The engine file: atomic, deterministic, and refused when anything in it is off."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from visionrt.engine_file import EngineFile, write_engine_file
from visionrt.errors import EngineFileError, UsageError
from visionrt.manifest import FORMAT_VERSION, Manifest, PlanInfo, TensorInfo
from visionrt.recipe import Recipe
from visionrt.spec import PRESETS

MEMBERS = {"model.onnx": b"graph" * 50, "plans/rtx-sm86.plan": bytes(range(256))}


def manifest() -> Manifest:
    return Manifest(
        name="tiny",
        created_by="trtconvert 0",
        precision="fp16",
        twin_precision="fp32",
        recipe=Recipe("classify", "classifier", PRESETS["imagenet"], labels=("a", "ü")),
        inputs=(TensorInfo("x", "float32", ("batch", 3, 224, 224)),),
        outputs=(TensorInfo("y", "float32", ("batch", 1000)),),
        source={"file": "tiny.onnx", "sha256": "0" * 64},
        twin="model.onnx",
        typed_graph="model.onnx",
        plans=(PlanInfo("plans/rtx-sm86.plan", "tensorrt_rtx", "rtx:sm86", "1.7", ("86",), 1.5),),
    )


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.engine"
    write_engine_file(path, manifest(), MEMBERS)
    return path


def test_round_trip(engine: Path) -> None:
    with EngineFile(engine) as opened:
        assert {m: opened.read(m) for m in opened.manifest.members} == MEMBERS
        expected = manifest()
        assert opened.manifest.recipe == expected.recipe
        assert opened.manifest.plans == expected.plans
        assert opened.manifest.inputs == expected.inputs
    assert [p.name for p in engine.parent.iterdir()] == ["tiny.engine"]


def test_same_members_give_the_same_bytes(engine: Path, tmp_path: Path) -> None:
    write_engine_file(tmp_path / "again.engine", manifest(), MEMBERS)
    assert (tmp_path / "again.engine").read_bytes() == engine.read_bytes()


def test_members_are_stored_uncompressed(engine: Path) -> None:
    assert MEMBERS["plans/rtx-sm86.plan"] in engine.read_bytes()


def read_everything(path: Path) -> dict[str, bytes]:
    with EngineFile(path) as opened:
        return {name: opened.read(name) for name in opened.manifest.members}


def test_a_flipped_byte_never_changes_what_is_read(engine: Path) -> None:
    """Wherever one byte is flipped, the file is refused or reads exactly as before."""
    original = engine.read_bytes()
    with EngineFile(engine) as opened:
        before = opened.manifest
    positions = random.Random(1).sample(range(len(original)), 600)
    refused = 0
    for position in positions:
        damaged = bytearray(original)
        damaged[position] ^= 0x20
        engine.write_bytes(damaged)
        try:
            assert read_everything(engine) == MEMBERS
            with EngineFile(engine) as opened:
                assert opened.manifest == before
        except EngineFileError:
            refused += 1
    assert refused > 0.9 * len(positions)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99, 0.9999])
def test_truncated(engine: Path, share: float) -> None:
    data = engine.read_bytes()
    engine.write_bytes(data[: int(share * len(data))])
    with pytest.raises(EngineFileError):
        EngineFile(engine)


def repack(engine: Path, edit: dict[str, bytes | None], **zip_options: int) -> None:
    """Write the archive again with members replaced, added or (None) removed."""
    with zipfile.ZipFile(engine) as archive:
        members: dict[str, bytes | None] = {n: archive.read(n) for n in archive.namelist()}
    members |= edit
    with zipfile.ZipFile(engine, "w", **zip_options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "a//b", "a\\b", "C:x", "plans/", "x\ny", "."]
)
def test_unsafe_member_names_are_refused(engine: Path, name: str) -> None:
    repack(engine, {name: b"x"})
    with pytest.raises(EngineFileError):
        EngineFile(engine)


def test_unlisted_member(engine: Path) -> None:
    repack(engine, {"extra.bin": b"x"})
    with pytest.raises(EngineFileError, match="exactly the listed members"):
        EngineFile(engine)


def test_missing_member(engine: Path) -> None:
    repack(engine, {"model.onnx": None})
    with pytest.raises(EngineFileError):
        EngineFile(engine)


def test_replaced_member_fails_its_hash(engine: Path) -> None:
    repack(engine, {"model.onnx": b"other" * 50})
    with EngineFile(engine) as opened, pytest.raises(EngineFileError, match="SHA-256"):
        opened.read("model.onnx")


def test_compressed_members_are_refused(engine: Path) -> None:
    repack(engine, {}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(EngineFileError, match="stored"):
        EngineFile(engine)


def edit_manifest(engine: Path, **changes: object) -> None:
    with zipfile.ZipFile(engine) as archive:
        value = json.loads(archive.read("manifest.json"))
    repack(engine, {"manifest.json": json.dumps({**value, **changes}).encode()})


def test_newer_format_version(engine: Path) -> None:
    edit_manifest(engine, format_version=FORMAT_VERSION + 1)
    with pytest.raises(EngineFileError, match="Upgrade visionrt"):
        EngineFile(engine)


def test_edited_preprocess_spec_is_refused(engine: Path) -> None:
    recipe = manifest().recipe.to_json()
    recipe["preprocess"]["color"] = "bgr"
    edit_manifest(engine, recipe=recipe)
    with pytest.raises(EngineFileError, match="preprocess spec"):
        EngineFile(engine)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "zip"},
        {"recipe": {}},
        {"recipe": 5},
        {"plans": [{"member": "x"}]},
        {"inputs": None},
        {"members": []},
        {"twin": "missing.onnx"},
    ],
)
def test_wrong_manifests(engine: Path, changes: dict[str, object]) -> None:
    edit_manifest(engine, **changes)
    with pytest.raises(EngineFileError):
        EngineFile(engine)


def test_deeply_nested_manifest_is_an_error_not_a_crash(engine: Path) -> None:
    repack(engine, {"manifest.json": b"[" * 200_000})
    with pytest.raises(EngineFileError):
        EngineFile(engine)


def test_other_files(tmp_path: Path, images: Path) -> None:
    for source in (images / "coffee.png", images / "labels.csv"):
        with pytest.raises(EngineFileError):
            EngineFile(shutil.copy(source, tmp_path / "x.engine"))
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a", b"b")
    with pytest.raises(EngineFileError, match=r"without manifest\.json"):
        EngineFile(tmp_path / "plain.zip")
    with pytest.raises(EngineFileError, match="no such file"):
        EngineFile(tmp_path / "none.engine")
    with pytest.raises(EngineFileError):
        EngineFile(tmp_path)


def test_recipe_refusals() -> None:
    spec = PRESETS["yolo"]
    for arguments in (
        {"task": "classfy", "head": "classifier"},
        {"task": "classify", "head": "yolo"},
        {"task": "detect", "head": "yolo", "confidence": 1.5},
        {"task": "detect", "head": "yolo", "iou": "x"},
        {"task": "detect", "head": "yolo", "max_det": 0},
        {"task": "detect", "head": "yolo", "labels": (1, 2)},
    ):
        with pytest.raises(UsageError):
            Recipe(preprocess=spec, **arguments)  # type: ignore[arg-type]


def test_recipe_label_of_an_unknown_class_is_its_number() -> None:
    recipe = Recipe("detect", "yolo", PRESETS["yolo"], labels=("person",))
    assert [recipe.label(i) for i in (0, 1, -1)] == ["person", "1", "-1"]
