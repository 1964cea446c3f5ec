// The GGUF format, versions 2 and 3, little-endian (ggml's docs/gguf.md): a header, typed metadata, tensor entries, the
// tensors' bytes. Read through a memory map. Goals: every count, size and offset is checked against the file's length
// before anything is allocated; metadata stays where it is in the map. Non-goals: version 1, big-endian files, arrays
// of arrays (llama.cpp refuses them too), split files.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "core/dequantize.h"

namespace tessera {

struct GgufTensor {
  std::string name;
  const BlockFormat* format;
  std::vector<int64_t> shape;   // outermost first, the reverse of the file's order; 1 to 4 sizes, none of them 0
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file
};

class GgufFile {
 public:
  // Throws Error{kData} naming the key or tensor and what was expected and found; Error{kFile} when it can't be read.
  explicit GgufFile(const std::filesystem::path& path);

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // as listed
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;

  // Metadata. nullopt where the key is absent; a value of another type throws Error{kData} naming the key.
  std::optional<std::string_view> text(const std::string& key) const;
  std::optional<int64_t> integer(const std::string& key) const;  // of any integer type, if it fits
  std::optional<double> number(const std::string& key) const;    // of any integer or floating-point type
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::vector<std::string_view>> texts(const std::string& key) const;
  std::optional<std::vector<int64_t>> integers(const std::string& key) const;
  std::optional<std::vector<double>> numbers(const std::string& key) const;
  std::vector<std::string> keys() const;

  const std::filesystem::path& path() const { return file_.path(); }
  const MappedFile& file() const { return file_; }

 private:
  class Reader;
  enum class Type : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };
  struct Value {
    Type type;  // of an array: its elements'
    bool is_array = false;
    uint64_t count = 1;                // elements
    std::span<const std::byte> bytes;  // the elements as they are in the file
  };
  static constexpr Type kNumbers[] = {Type::kU8,  Type::kI8,  Type::kU16, Type::kI16, Type::kU32,
                                      Type::kI32, Type::kU64, Type::kI64, Type::kF32, Type::kF64};
  static constexpr std::span<const Type> kIntegers = std::span(kNumbers).first<8>();
  static constexpr Type kStrings[] = {Type::kString}, kBools[] = {Type::kBool};

  const Value* find(const std::string& key, bool is_array, const char* expected, std::span<const Type> types) const;
  int64_t integer_at(const Value& value, uint64_t i, const std::string& key) const;
  double number_at(const Value& value, uint64_t i, const std::string& key) const;
  [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const;

  MappedFile file_;
  std::map<std::string, Value> metadata_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace tessera
