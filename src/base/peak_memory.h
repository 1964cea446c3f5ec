// The memory that this process holds, and the most that it has held.
#pragma once
#include <cstdint>
#include <fstream>
#include <string>

namespace tessera {

// A "VmXXX:  123 kB" line of /proc/self/status, in bytes; 0: there is none.
inline int64_t memory_status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

inline int64_t rss_bytes() { return memory_status_bytes("VmRSS"); }

// Not getrusage's: that one counts what the parent held when it started this program.
inline int64_t peak_rss_bytes() { return memory_status_bytes("VmHWM"); }

}  // namespace tessera
