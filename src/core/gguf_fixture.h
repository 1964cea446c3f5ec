// For tests: GGUF files built piece by piece, so that each piece can be wrong.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace tessera::gguf {

// Type numbers of metadata values.
enum : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
inline std::string u32(uint32_t value) { return raw(value); }
inline std::string u64(uint64_t value) { return raw(value); }
inline std::string text(const std::string& value) { return u64(value.size()) + value; }

inline std::string key(const std::string& name, uint32_t type, const std::string& value) {
  return text(name) + u32(type) + value;
}
inline std::string key(const std::string& name, uint32_t value) { return key(name, kU32, u32(value)); }
inline std::string key(const std::string& name, float value) { return key(name, kF32, raw(value)); }
inline std::string key(const std::string& name, const std::string& value) { return key(name, kString, text(value)); }
inline std::string key(const std::string& name, const std::vector<std::string>& values) {
  std::string all;
  for (const std::string& value : values) all += text(value);
  return key(name, kArray, u32(kString) + u64(values.size()) + all);
}
inline std::string key(const std::string& name, const std::vector<int32_t>& values) {
  std::string all;
  for (const int32_t value : values) all += raw(value);
  return key(name, kArray, u32(kI32) + u64(values.size()) + all);
}
inline std::string key(const std::string& name, const std::vector<float>& values) {
  std::string all;
  for (const float value : values) all += raw(value);
  return key(name, kArray, u32(kF32) + u64(values.size()) + all);
}

// sizes: innermost first, as the file has them.
inline std::string tensor(const std::string& name, const std::vector<uint64_t>& sizes, uint32_t type, uint64_t offset) {
  std::string entry = text(name) + u32(static_cast<uint32_t>(sizes.size()));
  for (const uint64_t size : sizes) entry += u64(size);
  return entry + u32(type) + u64(offset);
}

struct File {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> keys, tensors;
  std::string data;
  int64_t claimed_keys = -1, claimed_tensors = -1;  // -1: as many as there are

  std::string bytes(size_t alignment = 32) const {
    std::string out = magic + u32(version);
    out += u64(claimed_tensors < 0 ? tensors.size() : static_cast<uint64_t>(claimed_tensors));
    out += u64(claimed_keys < 0 ? keys.size() : static_cast<uint64_t>(claimed_keys));
    for (const std::string& k : keys) out += k;
    for (const std::string& t : tensors) out += t;
    if (!data.empty()) out.append((alignment - out.size() % alignment) % alignment, '\0');
    return out + data;
  }
};

}  // namespace tessera::gguf
