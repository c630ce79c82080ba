"""A frame's work as a CUDA graph: recorded once for each set of parameters, then replayed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from visionrt import _core
from visionrt.device import Stream, cuda_errors
from visionrt.errors import MissingDependencyError

# Failures in a row until graphs are given up. One may be chance: the garbage collector, freeing
# another model's memory in the middle of a recording, spoils it.
ATTEMPTS = 2
LIMIT = 8  # graphs kept per lane; each holds some 100 kB of driver memory


class GraphCache:
    """Graphs of one stream, by what they were recorded with; the least used one goes first.

    Not for several threads at once; the context must be current. What a graph was recorded with
    must live until :meth:`clear`, or be part of the key, as the addresses of buffers are.

    Attributes:
        problem: why work is queued piece by piece; empty while graphs are used.
        made, updated, replayed: how often a graph was instantiated, changed in place, launched.
    """

    def __init__(self, stream: Stream, limit: int = LIMIT) -> None:
        self._stream = stream
        self._limit = limit
        self._graphs: OrderedDict[Hashable, _core.Graph] = OrderedDict()
        self._warm: set[Hashable] = set()
        self._failures = 0
        self.problem = ""
        self.made = self.updated = self.replayed = 0

    def run(self, key: Hashable, warm_key: Hashable, enqueue: Callable[[], None]) -> None:
        """Queue the work that ``enqueue`` queues, by a graph where that is possible.

        Args:
            key: everything that the work depends on.
            warm_key: what must have been queued plainly once before it may be recorded: TensorRT
                prepares itself for a shape on the first run.
            enqueue: queues the work on the stream; must not allocate, free or wait.

        Raises:
            MissingDependencyError: the GPU failed.
        """
        if self.problem or warm_key not in self._warm:
            enqueue()
            self._warm.add(warm_key)
            return
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._make(key, enqueue)
        if graph is None:
            enqueue()
            return
        self._graphs.move_to_end(key)
        with cuda_errors("launch a CUDA graph"):
            graph.launch(self._stream.handle)
        self.replayed += 1

    def stop(self, problem: str) -> None:
        """Use no graphs from now on, for a reason."""
        self.problem = problem
        self.clear()

    def clear(self) -> None:
        """Release every graph. May be called twice."""
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        self._warm.clear()

    def _make(self, key: Hashable, enqueue: Callable[[], None]) -> _core.Graph | None:
        """The graph for a key, or None where it is refused; ``problem`` says so in the end."""
        try:
            recording = self._record(enqueue)
            graph = self._renewed(recording)
        except MissingDependencyError as error:
            self._failures += 1
            if self._failures >= ATTEMPTS:
                self.stop(error.got)
            return None
        self._failures = 0
        self._graphs[key] = graph
        return graph

    def _record(self, enqueue: Callable[[], None]) -> _core.GraphRecording:
        handle = self._stream.handle
        with cuda_errors("record a CUDA graph"):
            _core.graph_begin(handle)
            try:
                enqueue()
                return _core.graph_end(handle)
            except BaseException:
                # Or the stream would go on recording.
                _core.graph_discard(handle)
                raise

    def _renewed(self, recording: _core.GraphRecording) -> _core.Graph:
        """The oldest graph, changed in place, when the cache is full; else a new one."""
        with cuda_errors("make a CUDA graph"):
            if len(self._graphs) >= self._limit:
                oldest_key, oldest = next(iter(self._graphs.items()))
                refused = oldest.update(recording)
                del self._graphs[oldest_key]
                if not refused:
                    self.updated += 1
                    return oldest
                oldest.close()
            graph = _core.Graph(recording)
            self.made += 1
            return graph
