// What the whole fake driver shares: one lock, the live objects, faults to inject, findings.
//
// The handles of cuda.h point at incomplete structs; here those structs are completed, so a handle
// is a plain typed pointer.
#pragma once

#include <cuda.h>

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

struct CUctx_st {
  CUdevice device = 0;
  int references = 0;
  bool is_primary = false;
  bool destroyed = false;
  CUresult lost = CUDA_SUCCESS;  // what every call returns once the context is corrupted
  CUstream legacy_stream = nullptr;
};

namespace fake {

enum class MemoryKind { kDevice, kPinned };

struct Allocation {
  std::size_t bytes;
  MemoryKind kind;
  CUcontext owner;
  unsigned char* raw;  // with a guard zone before and after the bytes
};

// The `nth` next call of `call` (without a version suffix) fails with `result`; "execute" is the
// execution of a kernel rather than its launch.
struct Fault {
  std::string call;
  long nth;
  CUresult result;
};

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  bool initialised = false;
  bool defers = false;  // work waits until somebody synchronises
  int compute_capability = 86;
  int driver_version = 13000;
  std::size_t memory_bytes = std::size_t{4} << 30;
  std::size_t used_bytes = 0;
  CUcontext primary = nullptr;
  std::set<CUcontext> contexts;
  std::map<std::uintptr_t, Allocation> allocations;
  std::set<CUstream> streams;
  std::set<CUevent> events;
  std::set<CUgraph> graphs;
  std::set<CUgraphExec> graph_execs;
  std::map<std::string, long> calls;
  std::vector<Fault> faults;
  std::vector<std::string> findings;
};

// Never destroyed: PyCUDA calls in while the process exits.
State& state();

// The contexts pushed in this thread, the current one last.
std::vector<CUcontext>& context_stack();
CUcontext current_context();

// True in a thread that runs a host function, which must not call the driver.
bool& in_host_function();

// Notes a misuse that the real driver might not report. The lock must be held.
void report(const std::string& finding);

// Whether a fault is due for this call, counted. The lock must be held.
CUresult injected(const std::string& call);

// A call like an illegal address corrupts its context for good.
bool corrupts_context(CUresult result);

// Every driver call: takes the lock, counts, injects faults, and checks what must be in place.
class Call {
 public:
  enum Needs { kNothing, kInit, kContext };
  Call(const char* function, Needs needs);
  std::unique_lock<std::mutex> lock;
  CUresult result = CUDA_SUCCESS;
  CUcontext context = nullptr;
};

}  // namespace fake

#define FAKE_ENTER(needs)                       \
  fake::Call call(__func__, fake::Call::needs); \
  if (call.result != CUDA_SUCCESS) return call.result
