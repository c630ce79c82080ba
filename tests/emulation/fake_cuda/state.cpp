#include "state.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace fake {
namespace {

long number_from(const char* variable, long otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtol(text, nullptr, 10);
}

// "cuMemAlloc:3:2,cuLaunchKernel:1:719" in VISIONRT_FAKE_CUDA_FAULTS.
std::vector<Fault> faults_from_environment() {
  std::vector<Fault> faults;
  const char* text = std::getenv("VISIONRT_FAKE_CUDA_FAULTS");
  std::istringstream list(text == nullptr ? "" : text);
  for (std::string item; std::getline(list, item, ',');) {
    std::istringstream parts(item);
    std::string call, nth, result;
    if (std::getline(parts, call, ':') && std::getline(parts, nth, ':') && (parts >> result)) {
      faults.push_back({call, std::stol(nth), static_cast<CUresult>(std::stoi(result))});
    }
  }
  return faults;
}

State* make_state() {
  auto* made = new State;
  made->defers = number_from("VISIONRT_FAKE_CUDA_DEFERS", 0) != 0;
  made->compute_capability = static_cast<int>(number_from("VISIONRT_FAKE_CUDA_SM", 86));
  made->driver_version = static_cast<int>(number_from("VISIONRT_FAKE_CUDA_VERSION", 13000));
  made->faults = faults_from_environment();
  return made;
}

std::string without_version(const char* function) {
  std::string name(function);
  const std::size_t at = name.rfind("_v");
  if (at != std::string::npos && name.find_first_not_of("0123456789", at + 2) == name.npos) {
    name.resize(at);
  }
  return name;
}

}  // namespace

State& state() {
  static State* shared = make_state();
  return *shared;
}

std::vector<CUcontext>& context_stack() {
  thread_local std::vector<CUcontext> stack;
  return stack;
}

CUcontext current_context() {
  const auto& stack = context_stack();
  return stack.empty() ? nullptr : stack.back();
}

bool& in_host_function() {
  thread_local bool inside = false;
  return inside;
}

void report(const std::string& finding) { state().findings.push_back(finding); }

CUresult injected(const std::string& call) {
  auto& faults = state().faults;
  for (auto fault = faults.begin(); fault != faults.end(); ++fault) {
    if (fault->call != call || --fault->nth > 0) continue;
    const CUresult result = fault->result;
    faults.erase(fault);
    return result;
  }
  return CUDA_SUCCESS;
}

bool corrupts_context(CUresult result) {
  switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
      return true;
    default:
      return false;
  }
}

Call::Call(const char* function, Needs needs) : lock(state().mutex) {
  State& s = state();
  const std::string name = without_version(function);
  ++s.calls[name];
  if (in_host_function()) {
    report(name + " called from a host function");
    result = CUDA_ERROR_NOT_PERMITTED;
    return;
  }
  if (needs == kNothing) return;
  if (!s.initialised && name != "cuInit") {
    result = CUDA_ERROR_NOT_INITIALIZED;
    return;
  }
  context = current_context();
  if (needs == kContext) {
    if (context == nullptr) {
      result = CUDA_ERROR_INVALID_CONTEXT;
    } else if (context->destroyed) {
      result = CUDA_ERROR_CONTEXT_IS_DESTROYED;
    } else {
      result = context->lost;
    }
    if (result != CUDA_SUCCESS) return;
  }
  result = injected(name);
  if (result != CUDA_SUCCESS && context != nullptr && corrupts_context(result)) {
    context->lost = result;
  }
}

}  // namespace fake
