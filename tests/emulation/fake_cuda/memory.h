// Device and page-locked memory, both of them host memory with guard zones.
#pragma once

#include <cstddef>

#include "state.h"

namespace fake {

// The allocation that holds `address`, or null. The lock must be held.
const Allocation* allocation_of(const void* address);

// Whether all bytes may be touched: inside one allocation, or ordinary host memory, of which
// nothing is known. The lock must be held.
bool reachable(const void* start, std::size_t bytes);

bool is_device(const void* address);
bool is_pinned(const void* address);

}  // namespace fake
