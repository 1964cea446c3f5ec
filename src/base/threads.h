// A parallel loop for work that takes milliseconds and more (curation, encoding). The engine has its own pool.
#pragma once
#include <cstdint>
#include <functional>

namespace tessera {

int num_cpus();

inline constexpr int kMostThreads = 1024;  // that a user may ask for

// Calls body(i) for i in [0, n) on `num_threads` threads (0 = all CPUs), in blocks of `grain`. The first exception is
// rethrown.
void parallel_for(int64_t n, const std::function<void(int64_t)>& body, int num_threads = 0, int64_t grain = 1);

}  // namespace tessera
