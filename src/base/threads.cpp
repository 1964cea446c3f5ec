#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera {

int num_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

void parallel_for(int64_t n, const std::function<void(int64_t)>& body, int num_threads, int64_t grain) {
  if (num_threads <= 0) num_threads = num_cpus();
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  auto work = [&] {
    try {
      for (int64_t begin; (begin = next.fetch_add(grain)) < n;) {
        for (int64_t i = begin; i < std::min(n, begin + grain); ++i) body(i);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      next = n;
    }
  };
  std::vector<std::jthread> threads;
  try {
    for (int t = 1; t < num_threads && t * grain < n; ++t) threads.emplace_back(work);
  } catch (const std::exception&) {  // no thread or no memory: those that run do the work
  }
  work();
  threads.clear();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace tessera
