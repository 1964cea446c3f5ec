// The most memory that this process has held.
#pragma once
#include <sys/resource.h>

#include <cstdint>

namespace tessera {

inline int64_t peak_rss_bytes() {
  struct rusage usage;
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<int64_t>(usage.ru_maxrss) * 1024 : 0;
}

}  // namespace tessera
