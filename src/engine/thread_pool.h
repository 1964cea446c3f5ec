// A persistent pool: one model layer is some ten short parallel steps, so its threads wait by spinning, and sleep only
// when nothing has come for a while.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace tessera::engine {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // 0: all CPUs
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(i, thread) for i in [0, n), thread in [0, size()), and returns when all are done. Which thread takes
  // which i is up to chance. The first exception is rethrown. One caller at a time.
  template <class Body>
  void run(int64_t n, const Body& body) {
    if (n <= 1 || threads_.empty()) {
      for (int64_t i = 0; i < n; ++i) body(i, 0);
      return;
    }
    run_job(
        n, [](const void* context, int64_t i, int thread) { (*static_cast<const Body*>(context))(i, thread); }, &body);
  }

 private:
  using Call = void (*)(const void* context, int64_t i, int thread);
  void run_job(int64_t n, Call call, const void* context);
  void take_tasks(int thread);
  void serve(int thread);

  std::vector<std::thread> threads_;
  int spins_;  // before a thread sleeps
  Call call_ = nullptr;
  const void* context_ = nullptr;
  int64_t num_tasks_ = 0, step_ = 1;  // step_: tasks taken at a time
  std::exception_ptr failure_;
  std::atomic_flag has_failure_;
  alignas(64) std::atomic<uint32_t> epoch_{0};  // of the job; the last one is 0 tasks and stop_
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> busy_{0};
  bool stop_ = false;
};

}  // namespace tessera::engine
