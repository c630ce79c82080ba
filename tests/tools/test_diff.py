"""Two engines compared answer by answer: hand-made results first, then whole runs."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from tiny_models import CLASSES, SIZE, save, save_pictures, tiny_classifier

from trtconvert.cli.app import run
from trtconvert.cli.diff import show
from trtconvert.diff.boxes import BoxDiff
from trtconvert.diff.change import Change, WorstImages, p95, some
from trtconvert.diff.classes import TopOneDiff
from trtconvert.diff.compare import DiffOptions, DiffReport, diff
from trtconvert.diff.pictures import MOST_SIDE, save_side_by_side
from trtconvert.diff.pixels import PixelDiff
from trtconvert.diff.points import KeypointDiff
from trtconvert.graph import tensor_info
from visionrt.engine_file import write_engine_file
from visionrt.errors import EngineFileError, InputDataError, UsageError
from visionrt.manifest import Manifest
from visionrt.metrics import Agreement, compare
from visionrt.recipe import Recipe
from visionrt.results import Classification, Detections, Keypoints, Segmentation
from visionrt.spec import PreprocessSpec

HW = (100, 200)
NAMES = ("cat", "dog", "bus, coach", "cup")
SPEC = PreprocessSpec(resize="stretch", size=(SIZE, SIZE))
TINY = Recipe("classify", "classifier", SPEC, labels=NAMES)


def boxes(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.asarray(rows, np.float32).reshape(-1, 6)
    return Detections(
        image_hw=HW,
        names=NAMES,
        xyxy=table[:, :4],
        confidence=table[:, 4],
        class_id=table[:, 5].astype(np.int32),
    )


def classes(class_id=None, confidence=0.9):
    ids = [] if class_id is None else [class_id]
    return Classification(
        image_hw=HW,
        names=NAMES,
        class_id=np.int32(ids),
        confidence=np.full(len(ids), confidence, np.float32),
        logits=np.zeros(CLASSES, np.float32),
    )


def mask(rows):
    array = np.asarray(rows, np.uint8)
    ones = np.ones(array.shape, np.float32)
    return Segmentation(image_hw=array.shape, names=NAMES, mask=array, confidence=ones)


def poses(*points):
    array = np.asarray(points, np.float32).reshape(len(points), -1, 3)
    names = ("nose", "left eye", "right eye")
    return Keypoints(image_hw=HW, names=names, keypoints=array, threshold=0.3)


def by_name(table):
    return {row["name"]: row for row in table.classes()}


# boxes


def test_matched_lost_new_and_flipped_boxes():
    reference = boxes(
        [0, 0, 10, 10, 0.9, 0],  # matched, moved and less sure
        [50, 0, 60, 10, 0.8, 0],  # lost
        [0, 50, 10, 60, 0.7, 1],  # becomes a bus
    )
    candidate = boxes(
        [0, 0, 10, 8, 0.7, 0],
        [0, 50, 10, 60, 0.6, 2],
        [80, 80, 90, 90, 0.5, 3],  # new
    )
    table = BoxDiff()
    change = table.update(reference, candidate)
    assert change.answers == 3
    assert change.shift == pytest.approx(0.8)  # the lost box
    assert change.reason == "1 flipped (dog → bus); 1 lost (cat 0.80); 1 new (cup 0.50)"
    rows = by_name(table)
    assert list(rows) == ["cat", "dog", "bus", "cup"]
    cat = rows["cat"]
    assert (cat["reference"], cat["candidate"], cat["matched"], cat["lost"]) == (2, 1, 1, 1)
    assert cat["mean_iou"] == pytest.approx(0.8)
    assert cat["iou_shift_p95"] == pytest.approx(0.2)
    assert cat["score_shift"] == pytest.approx(-0.2)
    assert cat["score_shift_p95"] == pytest.approx(0.2)
    assert (rows["dog"]["flipped_from"], rows["dog"]["lost"]) == (1, 0)
    assert (rows["bus"]["flipped_to"], rows["bus"]["new"]) == (1, 0)
    assert rows["bus"]["mean_iou"] is None
    assert (rows["cup"]["new"], rows["cup"]["candidate"]) == (1, 1)
    want = {"from_id": 1, "from": "dog", "to_id": 2, "to": "bus", "count": 1}
    assert table.flips() == [want]


def test_a_flip_needs_half_the_area_and_a_free_box():
    half, less = boxes([0, 0, 10, 5, 0.9, 1]), boxes([0, 0, 10, 4.99, 0.9, 1])
    reference = boxes([0, 0, 10, 10, 0.9, 0])
    for candidate, flips in ((half, 1), (less, 0)):
        table = BoxDiff()
        table.update(reference, candidate)
        assert len(table.flips()) == flips
    # The cat is matched, so the dog in its place is new, not a flip.
    table = BoxDiff()
    table.update(reference, boxes([0, 0, 10, 10, 0.5, 0], [0, 0, 10, 10, 0.9, 1]))
    assert table.flips() == []
    assert by_name(table)["dog"]["new"] == 1


def test_equal_boxes_and_no_boxes_do_not_differ():
    some_boxes = boxes([0, 0, 10, 10, 0.9, 0])
    for result in (boxes(), some_boxes):
        change = BoxDiff().update(result, result)
        assert (change.answers, change.shift, change.reason) == (0, 0, "no difference")


def test_a_moved_box_is_named():
    change = BoxDiff().update(boxes([0, 0, 10, 10, 0.9, 0]), boxes([0, 0, 10, 6, 0.8, 0]))
    assert (change.answers, change.reason) == (0, "cat 0.90 → 0.80, IoU 0.60")
    assert change.shift == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(20))
def test_counts_add_up_and_agree_with_the_metric(seed):
    rng = np.random.default_rng(seed)

    def some_boxes():
        low = rng.integers(0, 4, (rng.integers(0, 12), 2)) * 5.0
        size = rng.integers(1, 4, low.shape) * 5.0
        rest = np.stack([rng.uniform(0.2, 1, len(low)), rng.integers(0, 3, len(low))], axis=1)
        return boxes(*np.concatenate([low, low + size, rest], axis=1))

    table, pairs = BoxDiff(), [(some_boxes(), some_boxes()) for _ in range(4)]
    for reference, candidate in pairs:
        table.update(reference, candidate)
    found = compare("detect", *zip(*pairs, strict=True)).details
    rows = table.classes()
    for row in rows:
        assert row["reference"] == row["matched"] + row["lost"] + row["flipped_from"]
        assert row["candidate"] == row["matched"] + row["new"] + row["flipped_to"]
    for key in ("reference", "candidate", "matched"):
        assert sum(row[key] for row in rows) == found[f"boxes_{key}"]
    flips = sum(row["count"] for row in table.flips())
    assert flips == sum(row["flipped_from"] for row in rows)
    assert flips == sum(row["flipped_to"] for row in rows)


# classes, pixels, keypoints


def test_flips_of_the_best_class():
    table = TopOneDiff()
    changes = [
        table.update(classes(0, 0.9), classes(0, 0.6)),
        table.update(classes(0, 0.8), classes(1, 0.5)),
        table.update(classes(0, 0.4), classes(1, 0.5)),
        table.update(classes(2, 0.7), classes()),
        table.update(classes(), classes()),
    ]
    assert [change.answers for change in changes] == [0, 1, 1, 1, 0]
    # A sure answer that flips is worse than a doubtful one.
    assert changes[1].shift > changes[2].shift
    assert changes[0].reason == "cat 0.900 → 0.600"
    assert changes[1].reason == "cat 0.800 → dog 0.500"
    rows = by_name(table)
    assert (rows["cat"]["reference"], rows["cat"]["candidate"], rows["cat"]["same"]) == (3, 1, 1)
    assert rows["cat"]["score_shift"] == pytest.approx(-0.3)
    assert rows["dog"]["score_shift"] is None
    assert [(f["from"], f["to"], f["count"]) for f in table.flips()] == [
        ("cat", "dog", 2),
        ("bus", "(none)", 1),
    ]


def test_iou_of_each_class():
    table = PixelDiff()
    first = table.update(mask([[0, 0, 1, 1]]), mask([[0, 1, 1, 1]]))
    table.update(mask([[0, 0]]), mask([[0, 3]]))  # a class that comes late
    assert first.answers == pytest.approx(0.25)
    assert first.reason == "25.00% of pixels; IoU of cat 0.500"
    rows = by_name(table)
    assert rows["cat"]["iou"] == pytest.approx(2 / 4)
    assert rows["dog"]["iou"] == pytest.approx(2 / 3)
    assert rows["cup"] == {
        "class_id": 3,
        "name": "cup",
        "reference": 0,
        "candidate": 1,
        "both": 0,
        "iou": 0.0,
    }
    assert PixelDiff().update(mask([[1]]), mask([[1]])).answers == 0


def test_keypoints_lost_new_and_moved():
    # 5 % of 200 pixels is 10.
    reference = poses([[50, 50, 0.9], [80, 50, 0.9], [10, 10, 0.1]])
    candidate = poses([[61, 50, 0.8], [80, 50, 0.2], [10, 10, 0.5]])
    table = KeypointDiff()
    change = table.update(reference, candidate)
    assert change.answers == 3
    assert change.shift == pytest.approx(11 / 200)
    assert change.reason == "nose moved 5.5% of the side; 1 lost (left eye); 1 new (right eye)"
    rows = by_name(table)
    assert (rows["nose"]["moved"], rows["nose"]["lost"]) == (1, 0)
    assert rows["nose"]["shift"] == pytest.approx(11 / 200)
    assert rows["nose"]["score_shift"] == pytest.approx(-0.1)
    assert (rows["left eye"]["lost"], rows["left eye"]["shift"]) == (1, None)
    assert (rows["right eye"]["new"], rows["right eye"]["reference"]) == (1, 0)


def test_a_pose_without_a_partner_is_lost_point_by_point():
    one, two = [[10, 10, 0.9]] * 3, [[150, 90, 0.9]] * 3
    table = KeypointDiff()
    assert table.update(poses(one, two), poses(two)).answers == 3
    assert [row["lost"] for row in table.classes()] == [1, 1, 1]
    empty = Keypoints(image_hw=HW, keypoints=np.zeros((0, 3, 3), np.float32))
    assert table.update(empty, poses(one)).answers == 3


def test_other_skeletons_are_refused():
    with pytest.raises(UsageError, match="same keypoints"):
        KeypointDiff().update(poses([[1, 1, 1]] * 3), poses([[1, 1, 1]] * 2))


# the worst images


def test_worst_images_by_answers_then_shift_then_order(tmp_path):
    worst = WorstImages(4)
    changes = {"a": (0, 0.0), "b": (0, 0.5), "c": (2, 0.1), "d": (1, 0.9), "e": (2, 0.1)}
    for name, (answers, shift) in changes.items():
        worst.add(tmp_path / name, Change(answers, shift, f"why {name}"))
    assert [path.name for path, _ in worst.listed()] == ["c", "e", "d", "b"]
    assert worst.listed()[0][1] == "why c"


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_no_more_than_the_limit_are_kept(limit, tmp_path):
    worst = WorstImages(limit)
    for index in range(5):
        worst.add(tmp_path / str(index), Change(index + 1, 0.0, ""))
    assert [path.name for path, _ in worst.listed()] == ["4", "3", "2"][:limit]


def test_small_figures():
    assert p95([]) is None
    assert p95([-3.0]) == 3.0
    assert some(["a"]) == "a"
    assert some(list("abcde")) == "a, b, c, and 2 more"


def test_the_picture_holds_both_halves_under_their_titles(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    box, nothing = boxes([10, 10, 50, 50, 0.9, 0]), boxes()
    box.image_hw = nothing.image_hw = (60, 90)
    save_side_by_side(
        tmp_path / "out.png", tmp_path / "image.png", [nothing, box], ["A: left", "B: right"]
    )
    drawn = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(drawn[-60:, :90], pixels)
    right = box.plot(tmp_path / "image.png")[..., ::-1]
    np.testing.assert_array_equal(drawn[-60:, -90:], right)
    strips = drawn[:-60, :90], drawn[:-60, -90:]
    assert all(strip.size and strip.min() < 100 for strip in strips)
    assert (strips[0] != strips[1]).any()


def test_large_pictures_are_scaled_down(tmp_path):
    Image.new("RGB", (3 * MOST_SIDE, 300)).save(tmp_path / "wide.png")
    result = boxes()
    result.image_hw = (300, 3 * MOST_SIDE)
    save_side_by_side(tmp_path / "out.png", tmp_path / "wide.png", [result] * 2, "AB")
    width, height = Image.open(tmp_path / "out.png").size
    assert 2 * MOST_SIDE <= width <= 2 * MOST_SIDE + 20
    assert 100 <= height <= 150


# whole runs


def changed(change):
    """The tiny classifier with other weights in its last layer."""
    out = onnx.ModelProto()
    out.CopyFrom(tiny_classifier())
    for constant in out.graph.initializer:
        if constant.name == "fc":
            value = np.ascontiguousarray(change(numpy_helper.to_array(constant)))
            constant.CopyFrom(numpy_helper.from_array(value.astype(np.float32), "fc"))
    return out


def engine(path, twin=None, typed=None, recipe=TINY):
    """An engine file for the CPU that holds the given graphs."""
    graphs = {"model.onnx": twin, "typed.onnx": typed}
    members = {name: graph.SerializeToString() for name, graph in graphs.items() if graph}
    some_graph = twin or typed
    manifest = Manifest(
        name=path.stem,
        created_by="tests",
        precision="fp32",
        twin_precision="fp32",
        recipe=recipe,
        inputs=tuple(tensor_info(v) for v in some_graph.graph.input),
        outputs=tuple(tensor_info(v) for v in some_graph.graph.output),
        source={"file": "model.onnx", "sha256": ""},
        twin="model.onnx" if twin else None,
        typed_graph="typed.onnx" if typed else None,
        plans=(),
    )
    write_engine_file(path, manifest, members)
    return path


@pytest.fixture
def pair(tmp_path):
    """Engines whose answers are each other's, class 0 for 1 and so on, and pictures."""
    same, other = tiny_classifier(), changed(lambda w: w[[1, 0, 3, 2]])
    a = engine(tmp_path / "a.engine", same, typed=same)
    b = engine(tmp_path / "b.engine", same, typed=other)
    c = engine(tmp_path / "c.engine", other, typed=other)
    return a, b, c, save_pictures(tmp_path / "pictures", 6)


def test_an_engine_does_not_differ_from_itself(pair):
    a, _, _, pictures = pair
    report = diff(DiffOptions(a, a, pictures))
    assert report.agreement.agreement == 1.0
    assert (report.flips, report.worst, report.warnings) == ([], [], [])
    assert sum(row["same"] for row in report.classes) == 6


def test_every_answer_flips(pair, tmp_path):
    a, _, c, pictures = pair
    report = diff(DiffOptions(a, c, pictures, worst=4, output=tmp_path / "new" / "report"))
    assert report.agreement.agreement == 0.0
    assert sum(flip["count"] for flip in report.flips) == 6
    assert {(f["from_id"], f["to_id"]) for f in report.flips} <= {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert len(report.worst) == 4
    assert all(" → " in image.reason for image in report.worst)
    drawn = [tmp_path / "new" / "report" / image.picture for image in report.worst]
    assert [path.name[:3] for path in drawn] == ["01-", "02-", "03-", "04-"]
    for path, image in zip(drawn, report.worst, strict=True):
        original = Image.open(image.image)
        assert Image.open(path).size[0] >= 2 * original.size[0]
    stored = json.loads((tmp_path / "new" / "report" / "report.json").read_text())
    assert stored == report.to_json()
    assert stored["agreement"]["metric"] == "top1"


def test_typed_graphs_are_compared_on_request(pair):
    a, b, _, pictures = pair
    assert diff(DiffOptions(a, b, pictures)).agreement.agreement == 1.0
    report = diff(DiffOptions(a, b, pictures, typed=True))
    assert report.agreement.agreement == 0.0
    assert report.a_graph == "typed graph, fp32"


def test_nan_agrees_with_nothing(pair, tmp_path):
    _, _, _, pictures = pair
    recipe = Recipe("segment", "logits", SPEC, labels=("background", "thing"))

    def masks(bias):
        """The same two scores for every pixel."""
        nodes = [
            onnx.helper.make_node("Conv", ["image", "w"], ["flat"]),
            onnx.helper.make_node("Add", ["flat", "b"], ["scores"]),
        ]
        value_info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
        shapes = {"image": [1, 3, SIZE, SIZE], "scores": [1, 2, SIZE, SIZE]}
        constants = {"w": np.zeros((2, 3, 1, 1)), "b": np.reshape(bias, (1, 2, 1, 1))}
        graph = onnx.helper.make_graph(
            nodes,
            "masks",
            [value_info("image", kind, shapes["image"])],
            [value_info("scores", kind, shapes["scores"])],
            [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
        )
        opset = [onnx.helper.make_opsetid("", 17)]
        return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)

    sound = engine(tmp_path / "sound.engine", masks([1, 0]), recipe=recipe)
    broken = engine(tmp_path / "broken.engine", masks([np.nan, np.nan]), recipe=recipe)
    report = diff(DiffOptions(sound, broken, pictures))
    # Every pixel is background in both, by chance.
    assert [row["iou"] for row in report.classes] == [1.0]
    assert report.agreement.agreement == 0.0
    assert any("NaN" in warning for warning in report.warnings)
    assert len(report.worst) == 6
    assert all(image.reason.startswith("NaN") for image in report.worst)
    # A reference that is broken itself says nothing about the candidate.
    assert diff(DiffOptions(broken, broken, pictures)).agreement.agreement == 1.0


def test_a_model_takes_the_engines_recipe(pair, tmp_path):
    a, _, c, pictures = pair
    model = save(tiny_classifier(), tmp_path / "tiny.onnx")
    assert diff(DiffOptions(model, a, pictures)).agreement.agreement == 1.0
    assert diff(DiffOptions(c, model, pictures)).agreement.agreement == 0.0


def test_each_side_preprocesses_in_its_own_way(pair, tmp_path):
    a, _, _, pictures = pair
    spec = PreprocessSpec(resize="stretch", size=(SIZE, SIZE), std=(510, 510, 510))
    half = Recipe("classify", "classifier", spec, labels=("x", *NAMES[1:]))
    other = engine(tmp_path / "half.engine", tiny_classifier(), recipe=half)
    report = diff(DiffOptions(a, other, pictures))
    assert any("preprocess" in warning for warning in report.warnings)
    assert any("ids" in warning for warning in report.warnings)
    shifts = [row["score_shift"] for row in report.classes if row["score_shift"] is not None]
    assert report.flips or any(shifts)


def test_unreadable_images_are_skipped_and_named(pair):
    a, _, _, pictures = pair
    (pictures / "broken.png").write_bytes(b"no picture")
    report = diff(DiffOptions(a, a, pictures))
    assert report.agreement.images == 6
    assert len(report.warnings) == 1
    assert "broken.png" in report.warnings[0]
    for path in pictures.glob("picture*"):
        path.unlink()
    with pytest.raises(InputDataError, match="can be read"):
        diff(DiffOptions(a, a, pictures))


def test_confidence_reaches_both_sides(pair):
    a, _, _, pictures = pair
    report = diff(DiffOptions(a, a, pictures, confidence=1.0))
    assert [row["name"] for row in report.classes] == ["(none)"]


def test_one_image_is_in_memory_at_a_time(pair, tmp_path):
    a, _, c, _ = pair

    def peak(count):
        folder = tmp_path / f"large{count}"
        folder.mkdir()
        for index in range(count):
            Image.new("RGB", (1000, 800), (index, 0, 0)).save(folder / f"{index}.png")
        tracemalloc.start()
        diff(DiffOptions(a, c, folder))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)  # what is made once
    few, many = peak(2), peak(10)
    # An image is 2.4 MB: if they stayed, eight more would show.
    assert many < few + 1_000_000


def test_graphs_that_are_not_there(pair, tmp_path):
    a, _, _, pictures = pair
    only_twin = engine(tmp_path / "twin.engine", tiny_classifier())
    only_typed = engine(tmp_path / "typed.engine", typed=tiny_classifier())
    with pytest.raises(EngineFileError, match="typed graph"):
        diff(DiffOptions(a, only_twin, pictures, typed=True))
    with pytest.raises(EngineFileError, match="CPU twin"):
        diff(DiffOptions(only_typed, a, pictures))


def test_tasks_must_be_the_same(pair, tmp_path):
    a, _, _, pictures = pair
    detector = Recipe("detect", "yolo", SPEC)
    other = engine(tmp_path / "other.engine", tiny_classifier(), recipe=detector)
    with pytest.raises(UsageError, match="one task"):
        diff(DiffOptions(a, other, pictures))


# the command


def command(*arguments):
    return run(["diff", *map(str, arguments)])


def test_the_command_shows_tables(pair, tmp_path, capsys):
    a, _, c, pictures = pair
    assert command(a, c, "--data", pictures, "-o", tmp_path / "out", "--worst", 2) == 0
    captured = capsys.readouterr()
    assert not captured.err
    for word in ("top1", "flips", "images that differ the most", "CPU twin", "report:"):
        assert word in captured.out
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2


def test_long_tables_show_what_differs_first(capsys):
    def row(index, same):
        return {"class_id": index, "name": f"c{index}", "reference": 5, "candidate": 5} | {
            "same": same
        }

    rows = [row(index, 5) for index in range(40)] + [row(40, 2)]
    report = DiffReport("a", "b", "", "", "classify", Agreement("top1", 9, 0.5), rows, [], [], [])
    show(report)
    out = capsys.readouterr().out
    assert "c40" in out
    assert out.index("c40") < out.index("c0 ")
    assert "c39" not in out
    assert "and 11 more" in out


def test_a_drop_beyond_the_limit_exits_4_after_the_report(pair, tmp_path, capsys):
    a, _, c, pictures = pair
    arguments = (a, c, "--data", pictures, "--max-drop", "top1=50%", "-o", tmp_path / "out")
    assert command(*arguments) == 4
    captured = capsys.readouterr()
    assert "flips" in captured.out
    assert captured.err.startswith("error: expected top1 agreement with")
    assert captured.err.count("\n") == 1
    assert (tmp_path / "out" / "report.json").is_file()
    assert command(*arguments, "--json") == 4
    printed = json.loads(capsys.readouterr().out)
    assert printed["exit_code"] == 4
    assert printed["agreement"]["agreement"] == 0.0
    assert command(a, a, *arguments[2:], "--quiet") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--max-drop", "map=1%"), 2),
        (("--max-drop", "much"), 2),
        (("--worst", "-1"), 2),
        (("--confidence", "2"), 2),
        (("--data", "nowhere"), 8),
    ],
)
def test_mistakes(pair, tmp_path, capsys, more, code):
    a, _, c, pictures = pair
    assert command(a, c, "--data", pictures, "-o", tmp_path / "out", *more) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_mistakes_in_the_files(pair, tmp_path, capsys):
    a, _, _, pictures = pair
    model = save(tiny_classifier(), tmp_path / "tiny.onnx")
    assert command(model, model, "--data", pictures) == 2
    assert command(a, tmp_path / "gone.engine", "--data", pictures) == 7
    assert command(a, pictures / "picture0.png", "--data", pictures) == 7
    assert command(a, tmp_path / "gone.onnx", "--data", pictures) == 8
    assert command(a, a, "--data", pictures, "-o", model) == 8
    assert command(a, a) == 2
    assert capsys.readouterr().err.count("error: ") == 6
