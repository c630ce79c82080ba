"""Sizes of the graph's inputs: from flags, checked against the graph and the preprocess spec."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import ModelProto

from trtconvert.graph import image_inputs, shape_of
from trtconvert.targets.base import ShapeRange
from visionrt.errors import ModelError, UsageError
from visionrt.spec import PreprocessSpec

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ShapeFlags:
    """Shapes as given on the command line; an empty name stands for the only input.

    Attributes:
        min, opt, max: of plans, by input name; all empty when no flag was given.
        batch: largest batch, where no shapes are given; None for 1.
    """

    min: Shapes = field(default_factory=dict)
    opt: Shapes = field(default_factory=dict)
    max: Shapes = field(default_factory=dict)
    batch: int | None = None

    @property
    def explicit(self) -> bool:
        """Whether shapes were given, not only a batch."""
        return bool(self.min or self.opt or self.max)

    def of(self, name: str) -> tuple[int, ...] | None:
        """The best known shape of an input: the most common one, else the largest or smallest."""
        for shapes in (self.opt, self.max, self.min):
            found = shapes.get(name, shapes.get(""))
            if found:
                return found
        return None


def parse_shapes(text: str) -> Shapes:
    """Read ``name:1x3x640x640,other:1x2``; the name may be left out where there is one input.

    Raises:
        UsageError: not of that form.
    """
    shapes: Shapes = {}
    for part in filter(None, text.split(",")):
        # Names may hold colons ("Preprocessor/sub:0"), sizes cannot.
        name, _, sizes = part.rpartition(":")
        numbers = sizes.lower().split("x")
        if not all(number.isdecimal() and int(number) > 0 for number in numbers):
            raise UsageError(
                "shapes such as images:1x3x640x640",
                got=repr(part),
                fix="Write NAME:SIZExSIZE…, with a comma between inputs.",
            )
        shapes[name] = tuple(map(int, numbers))
    return shapes


def image_input_of(model: ModelProto) -> tuple[str, tuple[int | str, ...]]:
    """Name and shape of the one image input.

    Raises:
        ModelError: several inputs, or one that is not 4-D.
    """
    inputs = image_inputs(model.graph)
    if len(inputs) != 1:
        raise ModelError(
            "a model with one input, the image",
            got=", ".join(value.name for value in inputs),
            fix="Export the model with its other inputs fixed.",
        )
    shape = shape_of(inputs[0])
    if len(shape) != 4:
        raise ModelError(
            "an image input with four dimensions",
            got=f"{inputs[0].name!r} of shape {list(shape)}",
            fix="Export the model with an input of shape [batch, channels, height, width].",
        )
    return inputs[0].name, shape


def input_ranges(
    model: ModelProto, spec: PreprocessSpec, flags: ShapeFlags
) -> dict[str, ShapeRange]:
    """The range of shapes that plans are built for, by input name.

    Only the batch may vary: every image is brought to the size of the preprocess spec.

    Raises:
        UsageError: unknown input, or shapes that do not fit the graph, the spec or each other.
        ModelError: see :func:`image_input_of`.
    """
    name, graph_shape = image_input_of(model)
    for given in {*flags.min, *flags.opt, *flags.max} - {name, ""}:
        raise UsageError(
            f"shapes for the input {name!r}", got=f"{given!r}", fix=f"Write {name}:1x3x640x640."
        )
    fixed_batch = graph_shape[0] if isinstance(graph_shape[0], int) else None
    given_min, given_opt, given_max = (
        shapes.get(name, shapes.get("")) for shapes in (flags.min, flags.opt, flags.max)
    )
    smallest = spec.tensor_shape(fixed_batch or 1)
    largest = spec.tensor_shape(flags.batch or fixed_batch or 1)
    sizes = {
        "min": given_min or given_opt or given_max or smallest,
        "opt": given_opt or given_max or given_min or smallest,
        "max": given_max or given_opt or given_min or largest,
    }
    for key, shape in sizes.items():
        _check(name, key, shape, spec, graph_shape)
    if not sizes["min"][0] <= sizes["opt"][0] <= sizes["max"][0]:
        raise UsageError(
            "batch sizes with min ≤ opt ≤ max",
            got=", ".join(f"{key} {shape[0]}" for key, shape in sizes.items()),
            fix="Correct --minShapes, --optShapes and --maxShapes.",
        )
    return {name: ShapeRange(sizes["min"], sizes["opt"], sizes["max"])}


def _check(
    name: str,
    key: str,
    shape: tuple[int, ...],
    spec: PreprocessSpec,
    graph_shape: tuple[int | str, ...],
) -> None:
    wanted = spec.tensor_shape(shape[0])
    if shape != wanted:
        raise UsageError(
            f"the {key} shape of {name!r} to be {_text(wanted)}, what preprocessing makes",
            got=_text(shape),
            fix="Give the same size in --preprocess and in the shapes; only the batch may vary.",
        )
    if isinstance(graph_shape[0], int) and shape[0] != graph_shape[0]:
        raise UsageError(
            f"a batch of {graph_shape[0]}, which is fixed in the graph",
            got=f"{shape[0]}",
            fix="Leave the batch out, or export the model with a dynamic batch.",
        )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
