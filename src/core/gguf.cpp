#include "core/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/load.h"
#include "base/log.h"
#include "core/unicode.h"

namespace tessera {
namespace {

constexpr uint32_t kNumTypes = 13;
constexpr std::array<std::string_view, kNumTypes> kTypeNames{"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                             "bool", "string", "array", "u64", "i64", "f64"};
constexpr std::array<uint64_t, kNumTypes> kTypeBytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // 0: of no fixed size
constexpr uint64_t kMaxName = 65535;
constexpr uint32_t kMaxDims = 4;

}  // namespace

// Walks over the header once; `at_` never passes the end.
class GgufFile::Reader {
 public:
  explicit Reader(GgufFile& file) : file_(file), bytes_(file.file_.bytes()) {}

  void read() {
    where_ = "header";
    const auto magic = take(4);
    if (std::memcmp(magic.data(), "GGUF", 4) != 0) file_.fail("it doesn't begin with \"GGUF\"");
    const auto version = scalar<uint32_t>();
    if (version == 0x02000000 || version == 0x03000000) file_.fail("it is for big-endian machines");
    if (version != 2 && version != 3) file_.fail(fmt::format("expected version 2 or 3, found {}", version));
    const auto num_tensors = scalar<uint64_t>(), num_keys = scalar<uint64_t>();
    check_count(num_keys, 8 + 1 + 4 + 1, "metadata keys");
    check_count(num_tensors, 8 + 1 + 4 + 8 + 4 + 8, "tensors");
    for (uint64_t i = 0; i < num_keys; ++i) read_key(fmt::format("metadata key {} of {}", i + 1, num_keys));
    file_.tensors_.reserve(num_tensors);
    for (uint64_t i = 0; i < num_tensors; ++i) read_tensor(fmt::format("tensor {} of {}", i + 1, num_tensors));
    place_tensors();
  }

 private:
  uint64_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(uint64_t size) {
    if (size > left())
      file_.fail(fmt::format("{}: needs {} bytes at {}, the file has {}", where_, size, at_, bytes_.size()));
    const auto taken = bytes_.subspan(at_, size);
    at_ += size;
    return taken;
  }
  template <class T>
  T scalar() {
    return load<T>(take(sizeof(T)).data());
  }
  std::string_view text() {
    const auto size = scalar<uint64_t>();
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string name() {
    const std::string_view given = text();
    if (given.empty() || given.size() > kMaxName)
      file_.fail(fmt::format("{}: expected a name of 1 to {} bytes, found {}", where_, kMaxName, given.size()));
    if (valid_utf8_prefix(given) != given.size() || given.find('\0') != given.npos)
      file_.fail(where_ + ": its name is no UTF-8 text");
    return std::string(given);
  }
  void check_count(uint64_t count, uint64_t least_bytes_each, const std::string& what) const {
    if (count > left() / least_bytes_each)
      file_.fail(fmt::format("{}: claims {} {}, more than its {} bytes can hold", where_, count, what, bytes_.size()));
  }
  Type type() {
    const auto number = scalar<uint32_t>();
    if (number >= kNumTypes) file_.fail(fmt::format("{}: there is no type {}", where_, number));
    return static_cast<Type>(number);
  }

  void read_key(const std::string& ordinal) {
    where_ = ordinal;
    const std::string key = name();
    where_ = "key '" + key + "'";
    Value value;
    value.type = type();
    if (value.type == Type::kArray) {
      value.is_array = true;
      value.type = type();
      if (value.type == Type::kArray) file_.fail(where_ + ": arrays of arrays aren't read");
      value.count = scalar<uint64_t>();
    }
    const uint64_t begin = at_, size = kTypeBytes[static_cast<size_t>(value.type)];
    check_count(value.count, size > 0 ? size : 8, "elements");
    if (size > 0) take(value.count * size);  // can't overflow after that check
    for (uint64_t i = 0; size == 0 && i < value.count; ++i) text();
    value.bytes = bytes_.subspan(begin, at_ - begin);
    const bool flags_ok = value.type != Type::kBool || std::all_of(value.bytes.begin(), value.bytes.end(),
                                                                   [](std::byte b) { return b <= std::byte{1}; });
    if (!flags_ok) file_.fail(where_ + ": expected 0 or 1 for a bool");
    if (!file_.metadata_.emplace(key, value).second) file_.fail(where_ + " is there twice");
  }

  // Leaves the offset within the data in `begin` and the size in `end`.
  void read_tensor(const std::string& ordinal) {
    where_ = ordinal;
    GgufTensor tensor;
    tensor.name = name();
    where_ = "tensor '" + tensor.name + "'";
    const auto num_dims = scalar<uint32_t>();
    if (num_dims < 1 || num_dims > kMaxDims)
      file_.fail(fmt::format("{}: expected 1 to {} dimensions, found {}", where_, kMaxDims, num_dims));
    uint64_t num_elements = 1;
    for (uint32_t i = 0; i < num_dims; ++i) {
      const auto size = scalar<uint64_t>();
      if (size == 0 || size > INT64_MAX || __builtin_mul_overflow(num_elements, size, &num_elements))
        file_.fail(fmt::format("{}: size {} of dimension {} is none, or the product overflows", where_, size, i));
      tensor.shape.push_back(static_cast<int64_t>(size));
    }
    const auto row_length = static_cast<uint64_t>(tensor.shape[0]);
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    const auto ggml_type = scalar<uint32_t>();
    tensor.format = find_format(ggml_type);
    if (!tensor.format)
      file_.fail(fmt::format("{}: its type, {}, isn't read", where_, ggml_type_name(ggml_type)),
                 "types that are: " + supported_formats());
    const auto block = static_cast<uint64_t>(tensor.format->block_size);
    if (row_length % block != 0)
      file_.fail(fmt::format("{}: rows of {} are no multiple of {}'s blocks of {}", where_, row_length,
                             tensor.format->name, block));
    tensor.begin = scalar<uint64_t>();
    if (__builtin_mul_overflow(num_elements / block, static_cast<uint64_t>(tensor.format->block_bytes), &tensor.end))
      file_.fail(where_ + ": its size overflows");
    if (!names_.insert(tensor.name).second) file_.fail(where_ + " is there twice");
    file_.tensors_.push_back(std::move(tensor));
  }

  void place_tensors() {
    const int64_t alignment = file_.integer("general.alignment").value_or(32);
    if (alignment < 1 || alignment > (1 << 30) || !std::has_single_bit(static_cast<uint64_t>(alignment)))
      file_.fail(fmt::format("key 'general.alignment': expected a power of two, found {}", alignment));
    const auto step = static_cast<uint64_t>(alignment);
    const uint64_t data_start = (at_ + step - 1) / step * step;
    if (file_.tensors_.empty()) return;
    std::vector<const GgufTensor*> by_offset;
    for (GgufTensor& tensor : file_.tensors_) {
      const uint64_t offset = tensor.begin, size = tensor.end;
      where_ = "tensor '" + tensor.name + "'";
      if (offset % step != 0) file_.fail(fmt::format("{}: offset {} is no multiple of {}", where_, offset, step));
      const uint64_t data_size = bytes_.size() - std::min<uint64_t>(bytes_.size(), data_start);
      if (offset > data_size || size > data_size - offset)
        file_.fail(
            fmt::format("{}: its {} bytes at {} are outside the {} bytes of data", where_, size, offset, data_size));
      tensor.begin = data_start + offset;
      tensor.end = tensor.begin + size;
      by_offset.push_back(&tensor);
    }
    std::sort(by_offset.begin(), by_offset.end(), [](auto* a, auto* b) { return a->begin < b->begin; });
    for (size_t i = 1; i < by_offset.size(); ++i) {
      if (by_offset[i]->begin < by_offset[i - 1]->end)
        file_.fail("tensors '" + by_offset[i - 1]->name + "' and '" + by_offset[i]->name + "' overlap");
    }
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  std::string where_;
  std::set<std::string> names_;
};

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) { Reader(*this).read(); }

void GgufFile::fail(const std::string& what, const std::string& hint) const {
  throw Error(ErrorCode::kData, path().string() + " is no valid GGUF file: " + what,
              hint.empty() ? "the file may be cut short or damaged; fetch it again" : hint);
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return file_.bytes().subspan(tensor.begin, tensor.end - tensor.begin);
}

std::vector<std::string> GgufFile::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : metadata_) keys.push_back(key);
  return keys;
}

const GgufFile::Value* GgufFile::find(const std::string& key, bool is_array, const char* expected,
                                      std::span<const Type> types) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return nullptr;
  const Value& value = it->second;
  // An empty array has no elements whose type could be wrong.
  const bool fits = std::find(types.begin(), types.end(), value.type) != types.end() || value.count == 0;
  if (value.is_array != is_array || !fits)
    fail(fmt::format("key '{}': expected {}, found {}{}", key, expected, value.is_array ? "an array of " : "",
                     kTypeNames[static_cast<size_t>(value.type)]));
  return &value;
}

int64_t GgufFile::integer_at(const Value& value, uint64_t i, const std::string& key) const {
  const std::byte* at = value.bytes.data() + i * kTypeBytes[static_cast<size_t>(value.type)];
  switch (value.type) {
    case Type::kU8:
      return load<uint8_t>(at);
    case Type::kI8:
      return load<int8_t>(at);
    case Type::kU16:
      return load<uint16_t>(at);
    case Type::kI16:
      return load<int16_t>(at);
    case Type::kU32:
      return load<uint32_t>(at);
    case Type::kI32:
      return load<int32_t>(at);
    case Type::kI64:
      return load<int64_t>(at);
    case Type::kU64:
      if (load<uint64_t>(at) > INT64_MAX) fail(fmt::format("key '{}': {} is too large", key, load<uint64_t>(at)));
      return load<int64_t>(at);
    default:
      throw BugError("integer_at: no integer type");
  }
}

double GgufFile::number_at(const Value& value, uint64_t i, const std::string& key) const {
  if (value.type == Type::kF32) return load<float>(value.bytes.data() + i * sizeof(float));
  if (value.type == Type::kF64) return load<double>(value.bytes.data() + i * sizeof(double));
  return static_cast<double>(integer_at(value, i, key));
}

std::optional<std::string_view> GgufFile::text(const std::string& key) const {
  const Value* value = find(key, false, "a string", kStrings);
  if (!value) return std::nullopt;
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()) + 8, value->bytes.size() - 8);
}

std::optional<int64_t> GgufFile::integer(const std::string& key) const {
  const Value* value = find(key, false, "an integer", kIntegers);
  if (!value) return std::nullopt;
  return integer_at(*value, 0, key);
}

std::optional<double> GgufFile::number(const std::string& key) const {
  const Value* value = find(key, false, "a number", kNumbers);
  if (!value) return std::nullopt;
  return number_at(*value, 0, key);
}

std::optional<bool> GgufFile::boolean(const std::string& key) const {
  const Value* value = find(key, false, "a bool", kBools);
  if (!value) return std::nullopt;
  return value->bytes[0] == std::byte{1};
}

std::optional<std::vector<std::string_view>> GgufFile::texts(const std::string& key) const {
  const Value* value = find(key, true, "an array of strings", kStrings);
  if (!value) return std::nullopt;
  std::vector<std::string_view> texts;
  texts.reserve(value->count);
  std::span<const std::byte> left = value->bytes;
  for (uint64_t i = 0; i < value->count; ++i) {
    // Checked when the file was opened; checked again because its bytes may have changed since.
    const uint64_t size = left.size() < 8 ? UINT64_MAX : load<uint64_t>(left.data());
    if (left.size() < 8 || size > left.size() - 8) fail("key '" + key + "' changed while it was read");
    texts.emplace_back(reinterpret_cast<const char*>(left.data()) + 8, size);
    left = left.subspan(8 + size);
  }
  return texts;
}

std::optional<std::vector<int64_t>> GgufFile::integers(const std::string& key) const {
  const Value* value = find(key, true, "an array of integers", kIntegers);
  if (!value) return std::nullopt;
  std::vector<int64_t> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) numbers[i] = integer_at(*value, i, key);
  return numbers;
}

std::optional<std::vector<double>> GgufFile::numbers(const std::string& key) const {
  const Value* value = find(key, true, "an array of numbers", kNumbers);
  if (!value) return std::nullopt;
  std::vector<double> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) numbers[i] = number_at(*value, i, key);
  return numbers;
}

}  // namespace tessera
