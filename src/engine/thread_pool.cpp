#include "engine/thread_pool.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"
#include "base/threads.h"

namespace tessera::engine {
namespace {

constexpr int kSpins = 4000;  // some 100 us; none where threads must share a CPU

void pause() { __builtin_ia32_pause(); }

// Until `value` differs from `old`: spins, then sleeps.
template <class T>
T wait_for_change(const std::atomic<T>& value, T old, int spins) {
  for (int i = 0; i < spins; ++i) {
    const T now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause();
  }
  for (;;) {
    value.wait(old, std::memory_order_acquire);
    const T now = value.load(std::memory_order_acquire);
    if (now != old) return now;
  }
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  if (num_threads <= 0) num_threads = num_cpus();
  spins_ = num_threads <= num_cpus() ? kSpins : 0;
  threads_.reserve(static_cast<size_t>(num_threads));
  try {
    for (int t = 1; t < num_threads; ++t) threads_.emplace_back([this, t] { serve(t); });
  } catch (const std::exception& e) {  // no thread or no memory: results are the same with fewer
    log_warn("{} of {} threads run: {}", threads_.size() + 1, num_threads, e.what());
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::take_tasks(int thread) {
  try {
    for (int64_t i; (i = next_.fetch_add(step_, std::memory_order_relaxed)) < num_tasks_;) {
      for (const int64_t end = std::min(num_tasks_, i + step_); i < end; ++i) call_(context_, i, thread);
    }
  } catch (...) {
    if (!has_failure_.test_and_set()) failure_ = std::current_exception();
    next_ = num_tasks_;
  }
}

void ThreadPool::serve(int thread) {
  for (uint32_t seen = 0;;) {
    seen = wait_for_change(epoch_, seen, spins_);
    if (stop_) return;
    take_tasks(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

void ThreadPool::run_job(int64_t n, Call call, const void* context) {
  call_ = call;
  context_ = context;
  num_tasks_ = n;
  step_ = std::max<int64_t>(1, n / (32 * size()));  // rows by the hundred: not one at a time
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  take_tasks(0);
  for (int busy; (busy = busy_.load(std::memory_order_acquire)) > 0;) wait_for_change(busy_, busy, spins_);
  if (failure_) {
    const std::exception_ptr failure = std::exchange(failure_, nullptr);
    has_failure_.clear();
    std::rethrow_exception(failure);
  }
}

}  // namespace tessera::engine
