"""Raises nodes of a typed graph, int8 → float16 → float32, until its answers hold.

1. Does the graph hold as it is? Then nothing is raised.
2. Does it hold without int8? If not, float16 is at fault: the nodes to keep in float32 are
   searched with no int8 about, and stay so from there on.
3. Among the int8 nodes, those to raise are searched (:mod:`trtconvert.search.fewest`), in the
   order of noise removed per cost added (:mod:`trtconvert.search.noise`, ``cost``).

Everything is decided on the tuning images. Each evaluation is a run of the very graph that would
be built, with its float16 roundings written out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from trtconvert.calibration.reader import ImageReader
from trtconvert.evidence import Evidence
from trtconvert.graph_view import GraphView, node_name
from trtconvert.passes.half_types import FP16
from trtconvert.progress import Progress
from trtconvert.search.answers import answer_weights
from trtconvert.search.cost import added_cost, total_cost
from trtconvert.search.fewest import Oracle, fewest
from trtconvert.search.half_noise import half_noise
from trtconvert.search.noise import int8_noise
from trtconvert.typed import TypedGraph
from trtconvert.typers import HalfTyper, Int8Typer, Typer
from trtconvert.verify import MaxDrop, enforce, synthetic_images
from visionrt.errors import AccuracyError
from visionrt.metrics import Agreement
from visionrt.preprocess import Preprocessor

RANKING_IMAGES = 4


@dataclass(frozen=True)
class RaisedNode:
    """A node that the search raised.

    Attributes:
        noise_db: of the noise that it brings alone, over the signal; None where there was none, or
            no end of it.
        overflows: whether its results leave float16's range.
    """

    node: str
    op_type: str
    lowered: str
    raised: str
    noise_db: float | None
    overflows: bool


@dataclass(frozen=True)
class SearchReport:
    """What the search did.

    Attributes:
        metric, images: of the evaluations.
        evaluations: typed graphs that were run on the tuning images.
        seconds: wall time of ranking and evaluations.
        suspects: nodes that could be raised.
        agreement_before, agreement_after: on the tuning images.
        cost_before, cost_after: by the model of ``trtconvert.search.cost``, as a share of the cost
            of the graph in float32.
        raised: nodes above their first precision, the noisiest per cost first.
    """

    metric: str
    images: int
    evaluations: int
    seconds: float
    suspects: int
    agreement_before: float
    agreement_after: float
    cost_before: float
    cost_after: float
    raised: tuple[RaisedNode, ...]

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        return asdict(self)


class Search:
    """A typed graph on its way to holding; see the module.

    Args:
        typer: makes the graphs.
        tuning: what they are compared on.
        max_drop: what may be lost.
        progress: told of rankings and verifications.
    """

    def __init__(
        self, typer: Typer, tuning: Evidence, max_drop: MaxDrop, progress: Progress
    ) -> None:
        self.typer = typer
        self._tuning = tuning
        self._max_drop = max_drop
        self._progress = progress
        self._evaluations = 0
        self._start = time.perf_counter()
        self._noise: dict[str, Mapping[str, float]] = {}  # by the precision that brings it
        self._found: dict[tuple[frozenset[str], frozenset[str]], Agreement] = {}
        self._raised: tuple[str, ...] = ()
        self._float32: tuple[str, ...] = ()
        self._half = typer.half.name if isinstance(typer, HalfTyper) else FP16.name
        self._first = typer.typed()
        self._kinds = {d.node: d.op_type for d in self._first.decisions}
        self._ranked = self._suspects(self._first, "int8") or self._suspects(
            self._first, self._half
        )

    @property
    def typed(self) -> TypedGraph:
        """The graph as it stands."""
        return self._typed(frozenset(self._raised), frozenset(self._float32))

    @property
    def agreement(self) -> Agreement:
        """Of the graph as it stands, on the tuning images."""
        return self._agreement(frozenset(self._raised), frozenset(self._float32))

    def run(self) -> None:
        """Raise what must be.

        Raises:
            AccuracyError: the graph does not hold even with every node raised.
        """
        if self._holds(frozenset(), frozenset()):
            return
        int8 = self._suspects(self._first, "int8")
        everything = frozenset(int8)
        if not int8 or not self._holds(everything, frozenset()):
            without = self._typed(everything, frozenset())
            ranked = self._by_worth(self._suspects(without, self._half), self._half)
            oracle = Oracle(lambda kept: self._holds(everything, kept))
            kept = fewest(ranked, oracle)
            if kept is None:
                raise self._too_far(everything, frozenset(ranked))
            self._float32 = tuple(kept)
            self._ranked = ranked
        if int8:
            self._ranked = self._by_worth(int8, "int8")
            float32 = frozenset(self._float32)
            found = fewest(self._ranked, Oracle(lambda raised: self._holds(raised, float32)))
            if found is None:
                raise self._too_far(everything, float32)
            self._raised = tuple(found)

    def widen(self) -> bool:
        """Raise as many nodes again, the next in the ranking; False where all are raised."""
        is_int8 = bool(self._suspects(self._first, "int8"))
        present = self._raised if is_int8 else self._float32
        narrow = "int8" if is_int8 else self._half
        if narrow not in self._noise:
            self._ranked = self._by_worth(self._ranked, narrow)
        rest = [name for name in self._ranked if name not in present]
        more = rest[: max(len(present), math.ceil(len(self._ranked) / 8))]
        if is_int8:
            self._raised = (*present, *more)
        else:
            self._float32 = (*present, *more)
        return bool(more)

    def report(self) -> SearchReport:
        """What was done so far."""
        before, after = self._first, self.typed
        nothing = frozenset[str]()
        first = self._agreement(nothing, nothing)
        view = self.typer.view
        whole = total_cost(view, [d._replace(precision="fp32") for d in before.decisions])
        return SearchReport(
            first.metric,
            first.images,
            self._evaluations,
            time.perf_counter() - self._start,
            len(self._ranked),
            first.agreement,
            self.agreement.agreement,
            total_cost(view, before.decisions) / max(whole, 1.0),
            total_cost(view, after.decisions) / max(whole, 1.0),
            self._changes(before, after),
        )

    def _changes(self, before: TypedGraph, after: TypedGraph) -> tuple[RaisedNode, ...]:
        old = {d.node: d.precision for d in before.decisions}
        new = {d.node: d.precision for d in after.decisions}
        # By the searches' own choices first; readers that had to follow a float32 node come last.
        chosen = dict.fromkeys([*self._float32, *self._raised])
        followed = [name for name in new if new[name] != old.get(name) and name not in chosen]
        raised = []
        for name in [*chosen, *followed]:
            if name in old and new[name] != old[name]:
                noise = self._noise_of(name, self._half if new[name] == "fp32" else "int8")
                kinds = (self._kinds.get(name, ""), old[name], new[name])
                raised.append(RaisedNode(name, *kinds, _decibels(noise), noise == math.inf))
        return tuple(raised)

    def _typed(self, raised: frozenset[str], float32: frozenset[str]) -> TypedGraph:
        return self.typer.typed(
            {name: self._reason(name, "int8") for name in raised},
            {name: self._reason(name, self._half) for name in float32},
        )

    def _reason(self, name: str, narrow: str) -> str:
        noise = self._noise_of(name, narrow)
        if noise == math.inf:
            return f"raised from {narrow}, which it overflows"
        decibels = _decibels(noise)
        if decibels is None:
            return f"raised from {narrow} so that the answers hold"
        return f"raised from {narrow} so that the answers hold: alone it brings {decibels:.0f} dB"

    def _noise_of(self, name: str, narrow: str) -> float:
        return self._noise.get(narrow, {}).get(name, 0.0)

    def _agreement(self, raised: frozenset[str], float32: frozenset[str]) -> Agreement:
        key = (raised, float32)
        if key not in self._found:
            graph = self._typed(raised, float32).measured
            self._found[key] = self._tuning.compare(graph, self._progress)
            self._evaluations += 1
        return self._found[key]

    def _holds(self, raised: frozenset[str], float32: frozenset[str]) -> bool:
        try:
            enforce(self._agreement(raised, float32), self._max_drop)
        except AccuracyError:
            return False
        return True

    def _too_far(self, raised: frozenset[str], float32: frozenset[str]) -> AccuracyError:
        found = self._agreement(raised, float32)
        return AccuracyError(
            f"{found.metric} agreement with FP32 of at least {1 - self._max_drop.drop:.2%}",
            got=f"{found.agreement:.2%} on {found.images} images, with every node raised",
            fix="Allow a larger --max-drop, or check the model with trtconvert check.",
        )

    def _suspects(self, typed: TypedGraph, precision: str) -> list[str]:
        return [d.node for d in typed.decisions if d.precision == precision]

    def _by_worth(self, suspects: Sequence[str], precision: str) -> list[str]:
        self._noise[precision] = self._measured(precision)
        view = self.typer.view
        nodes = {node_name(node): node for node in view.model.graph.node}

        def worth(name: str) -> float:
            added = added_cost(view, nodes[name], precision)
            return self._noise_of(name, precision) / max(added, 1.0)

        return sorted(suspects, key=worth, reverse=True)

    def _measured(self, precision: str) -> Mapping[str, float]:
        images = self._images()
        if precision == "int8" and isinstance(self.typer, Int8Typer):
            typer = self.typer
            placement = typer.placement()
            return int8_noise(
                *(typer.view, placement, typer.thresholds, images, typer.weights, self._progress)
            )
        half = self.typer.half if isinstance(self.typer, HalfTyper) else FP16
        view = self.typer.view
        weights = answer_weights(view, self._tuning.recipe)
        return half_noise(view, images, self._progress, half, weights)

    def _images(self) -> Iterable[Any]:
        spec, batch = self._tuning.recipe.preprocess, _batch_of(self.typer.view)
        if self._tuning.images:
            reader = ImageReader(self._tuning.images, spec, batch=batch)
            return islice(reader, RANKING_IMAGES)
        preprocess = Preprocessor(spec)
        return [preprocess([pixels] * batch) for pixels in synthetic_images(spec.size)]


def _batch_of(view: GraphView) -> int:
    shape = view.shape[view.inputs[0]]
    return shape[0] if shape and isinstance(shape[0], int) else 1


def _decibels(noise: float) -> float | None:
    return 10 * math.log10(noise) if 0 < noise < math.inf else None
