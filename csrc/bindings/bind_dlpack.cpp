// Gives device memory away by DLPack. The structures are written down from its specification
// (dmlc/dlpack, version 1.0); a consumer frees a tensor by its deleter, from any thread.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace visionrt {
namespace {

constexpr std::int32_t kCuda = 2;  // kDLCUDA

struct Tensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements
  std::uint64_t byte_offset;
};

struct Managed {
  static constexpr const char* kName = "dltensor";
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct ManagedVersioned {
  static constexpr const char* kName = "dltensor_versioned";
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

bool interpreter_is_going() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsInitialized() == 0 || Py_IsFinalizing() != 0;
#else
  return Py_IsInitialized() == 0 || _Py_IsFinalizing() != 0;
#endif
}

// What a capsule holds; freed by the deleter alone.
template <class M>
struct Export {
  M managed{};
  std::vector<std::int64_t> shape, strides;
  PyObject* owner = nullptr;

  static void free(M* managed) {
    const std::unique_ptr<Export> self(static_cast<Export*>(managed->context));
    // Once Python goes, so does all memory of the process.
    if (interpreter_is_going()) return;
    const PyGILState_STATE state = PyGILState_Ensure();
    Py_DECREF(self->owner);
    PyGILState_Release(state);
  }

  // Of a capsule that nobody consumed; a consumer renames it.
  static void free_capsule(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, M::kName) == 0) return;
    const py::error_scope kept;
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(capsule, M::kName));
    managed->deleter(managed);
  }
};

template <class M>
py::capsule capsule_of(const py::object& owner, const Tensor& tensor,
                       const std::vector<std::int64_t>& shape,
                       const std::vector<std::int64_t>& strides) {
  auto exported = std::make_unique<Export<M>>();
  exported->shape = shape;
  exported->strides = strides;
  M& managed = exported->managed;
  managed.tensor = tensor;
  managed.tensor.shape = exported->shape.data();
  managed.tensor.strides = exported->strides.data();
  managed.context = exported.get();
  managed.deleter = &Export<M>::free;
  if constexpr (std::is_same_v<M, ManagedVersioned>) managed.major = 1;
  PyObject* capsule = PyCapsule_New(&managed, M::kName, &Export<M>::free_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  exported->owner = py::object(owner).release().ptr();
  exported.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

py::capsule dlpack_capsule(const py::object& owner, std::uintptr_t address, std::int32_t gpu,
                           const std::vector<std::int64_t>& shape,
                           const std::vector<std::int64_t>& strides, const std::string& kind,
                           bool versioned) {
  if (shape.size() != strides.size()) {
    throw std::invalid_argument("strides must be " + std::to_string(shape.size()) + ", got " +
                                std::to_string(strides.size()));
  }
  if (kind != "float32" && kind != "int32") {
    throw std::invalid_argument("kind must be \"float32\" or \"int32\", got \"" + kind + "\"");
  }
  Tensor tensor{};
  tensor.data = reinterpret_cast<void*>(address);
  tensor.device_type = kCuda;
  tensor.device_id = gpu;
  tensor.ndim = static_cast<std::int32_t>(shape.size());
  tensor.code = kind == "float32" ? 2 : 0;  // kDLFloat, kDLInt
  tensor.bits = 32;
  tensor.lanes = 1;
  return versioned ? capsule_of<ManagedVersioned>(owner, tensor, shape, strides)
                   : capsule_of<Managed>(owner, tensor, shape, strides);
}

}  // namespace

void bind_dlpack(py::module_& m) {
  m.def("dlpack_capsule", &dlpack_capsule, py::arg("owner"), py::arg("address"), py::arg("gpu"),
        py::arg("shape"), py::arg("strides"), py::arg("kind"), py::arg("versioned"),
        "A DLPack capsule over device memory of float32 or int32, strides in elements. It keeps\n"
        "`owner` until the consumer, in any thread, or the capsule itself lets go. versioned: of\n"
        "DLPack 1.0, else of the layout before. Does not order any work.");
}

}  // namespace visionrt
