// Graphs: recorded operations with their dependencies, and executable snapshots of them.
#pragma once

#include <cuda.h>

#include <memory>
#include <vector>

#include "operation.h"

struct CUgraphNode_st {
  CUgraph graph = nullptr;
  std::size_t index = 0;
  fake::Operation operation;
  std::vector<std::size_t> after;  // nodes of the same graph that come first
};

struct CUgraph_st {
  CUcontext context = nullptr;
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;  // in an order that respects `after`
};

namespace fake {

struct Step {
  Operation operation;
  std::vector<std::size_t> after;
};

// Never changed once made: a launch that is queued keeps the steps it began with.
using Steps = std::vector<Step>;

// Returns the node's index.
std::size_t add_node(CUgraph graph, Operation operation, const std::vector<std::size_t>& after);

}  // namespace fake

struct CUgraphExec_st {
  CUcontext context = nullptr;
  CUgraph source = nullptr;  // only compared, never followed
  std::shared_ptr<const fake::Steps> steps;
};
