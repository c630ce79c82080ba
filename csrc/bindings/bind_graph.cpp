#include "bindings/bindings.h"
#include "graph/graph.h"

namespace py = pybind11;

namespace visionrt {

void bind_graph(py::module_& m) {
  using graph::Graph;
  using graph::Recording;
  using Unlocked = py::call_guard<py::gil_scoped_release>;

  py::class_<Recording>(m, "GraphRecording", "Recorded work of a stream, from graph_end.")
      .def_property_readonly("node_count", &Recording::node_count)
      .def_property_readonly("kernel_count", &Recording::kernel_count);

  py::class_<Graph>(m, "Graph",
                    "Recorded work that is launched in one call. The buffers it was recorded with\n"
                    "must outlive it. Not for several threads at once.")
      .def(py::init<const Recording&>(), py::arg("recording"), Unlocked(),
           "Blocks while the driver prepares the work. Raises DriverError.")
      .def("launch", &Graph::launch, py::arg("stream"), Unlocked(),
           "Queues the work on a stream. Does not block. Raises DriverError.")
      .def("update", &Graph::update, py::arg("recording"), Unlocked(),
           "Takes over the addresses, sizes and arguments of a recording of the same sequence of\n"
           "work, for later launches. Returns '', or why it cannot, when nothing changed.")
      .def("close", &Graph::close, Unlocked(), "Releases it. May be called twice.");

  m.def("wait_for_stream", &graph::wait_for_stream, py::arg("waiter"), py::arg("other"), Unlocked(),
        "Lets later work on one stream start only after what is queued on another now. Does not\n"
        "block. Raises DriverError.");
  m.def("graph_begin", &graph::begin_recording, py::arg("stream"), Unlocked(),
        "Starts to record what this thread queues on a stream (an integer handle) instead of\n"
        "running it. Its context must be current, here and in every call on graphs. Until\n"
        "graph_end this thread must not allocate, free or synchronise. Raises DriverError.");
  m.def("graph_discard", &graph::discard_recording, py::arg("stream"), Unlocked(),
        "Ends and discards a recording, after an error. Does nothing where there is none.");
  m.def(
      "graph_end", [](cuda::StreamHandle stream) { return Recording(stream); }, py::arg("stream"),
      Unlocked(),
      "Ends a recording. Raises DriverError when a call that is not allowed in one spoiled it;\n"
      "the stream is usable again in either case.");
}

}  // namespace visionrt
