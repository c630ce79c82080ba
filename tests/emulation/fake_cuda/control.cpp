// What tests ask of the fake driver, besides CUDA: counts, findings and faults. See fake_cuda.py.
#include <algorithm>
#include <string>

#include "emulator.h"
#include "state.h"

using fake::state;

extern "C" {

// Live objects of a kind, or -1 for an unknown kind.
long fake_cuda_live(const char* kind) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  const std::string name(kind);
  const auto memory = [](fake::MemoryKind wanted) {
    const auto& all = state().allocations;
    return static_cast<long>(std::count_if(
        all.begin(), all.end(), [&](const auto& entry) { return entry.second.kind == wanted; }));
  };
  if (name == "device") return memory(fake::MemoryKind::kDevice);
  if (name == "pinned") return memory(fake::MemoryKind::kPinned);
  if (name == "device_bytes") return static_cast<long>(state().used_bytes);
  // The legacy stream of each context does not count.
  if (name == "streams") {
    return static_cast<long>(state().streams.size()) - static_cast<long>(state().contexts.size());
  }
  if (name == "events") return static_cast<long>(state().events.size());
  if (name == "graphs") return static_cast<long>(state().graphs.size());
  if (name == "graph_execs") return static_cast<long>(state().graph_execs.size());
  if (name == "contexts") return static_cast<long>(state().contexts.size());
  return -1;
}

// How often a call was made, by its name without a version; "execute" counts kernels that ran.
long fake_cuda_calls(const char* name) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  return state().calls[name];
}

// The `nth` next call fails with a CUresult.
void fake_cuda_fail(const char* name, long nth, int result) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().faults.push_back({name, nth, static_cast<CUresult>(result)});
}

// Faults that have not come due.
long fake_cuda_pending_faults() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  return static_cast<long>(state().faults.size());
}

void fake_cuda_set_memory(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().memory_bytes = bytes;
}

// What was found wrong, one line each. Valid until the thread asks again.
const char* fake_cuda_findings() {
  thread_local std::string text;
  text.clear();
  const std::lock_guard<std::mutex> lock(state().mutex);
  for (const std::string& finding : state().findings) text += finding + "\n";
  text += fake::emulator_findings();
  return text.c_str();
}

// Forgets findings, counts of calls, and faults.
void fake_cuda_clear() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().findings.clear();
  state().calls.clear();
  state().faults.clear();
  fake::clear_emulator_findings();
}

// Device memory that something besides a copy, a fill or a kernel has written.
void fake_cuda_mark_written(void* start, std::size_t bytes) { fake::mark_written(start, bytes); }

// For functions that are exported but not implemented.
int fake_cuda_unsupported(const char* name) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  fake::report(std::string(name) + " is not implemented by the fake driver");
  return CUDA_ERROR_NOT_SUPPORTED;
}
}
