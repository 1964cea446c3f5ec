// Wall time by part of a training step, on the thread that drives it: two clock readings a part, so it is always on.
#pragma once
#include <chrono>
#include <map>
#include <string>

namespace tessera {

class SectionTimer {
 public:
  explicit SectionTimer(const char* name) : name_(name), begin_(std::chrono::steady_clock::now()) {}
  ~SectionTimer() {
    totals()[name_] += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  SectionTimer(const SectionTimer&) = delete;
  SectionTimer& operator=(const SectionTimer&) = delete;

  // Seconds by part since the last clear(). Autograd's backward runs on the caller's thread on the CPU.
  static std::map<std::string, double>& totals() {
    static thread_local std::map<std::string, double> totals;
    return totals;
  }

 private:
  const char* name_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace tessera
