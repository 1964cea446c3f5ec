// A value from bytes that may begin anywhere.
#pragma once
#include <cstddef>
#include <cstring>

namespace tessera {

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace tessera
