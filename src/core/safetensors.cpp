#include "core/safetensors.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "core/tensor_names.h"

namespace tessera {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr const char* kPadPrefix = "pad.";

}  // namespace

size_t dtype_size(std::string_view dtype) {
  static const std::map<std::string_view, size_t> sizes = {{"F64", 8}, {"I64", 8},  {"F32", 4}, {"I32", 4},
                                                           {"F16", 2}, {"BF16", 2}, {"I16", 2}, {"I8", 1},
                                                           {"U8", 1},  {"BOOL", 1}};
  const auto it = sizes.find(dtype);
  return it == sizes.end() ? 0 : it->second;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kData, path.string() + " is no valid safetensors file: " + what,
                "the file may be cut short or damaged; copy it again");
  };
  if (bytes.size() < 8) fail("expected at least 8 bytes, found " + std::to_string(bytes.size()));
  uint64_t header_size;
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > kMaxHeader || header_size > bytes.size() - 8) {
    fail("its header claims " + std::to_string(header_size) + " bytes, the file has " + std::to_string(bytes.size()));
  }
  const uint64_t data_start = 8 + header_size, data_size = bytes.size() - data_start;
  // Sorted objects: looking up one of a million names in an ordered one would take a million steps.
  using Header = nlohmann::json;
  const Header header =
      Header::parse(reinterpret_cast<const char*>(bytes.data()) + 8,
                    reinterpret_cast<const char*>(bytes.data()) + data_start, JsonGuard(path.string()), false);
  if (!header.is_object()) fail("its header is no JSON object");
  std::vector<TensorInfo> all;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) fail("__metadata__ is no object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) fail("__metadata__." + key + " is no string");
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    TensorInfo tensor;
    tensor.name = name;
    const std::string at = "tensor '" + name + "': ";
    if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets")) {
      fail(at + "needs dtype, shape and data_offsets");
    }
    const Header &shape = entry["shape"], &offsets = entry["data_offsets"];
    if (!entry["dtype"].is_string()) fail(at + "dtype is no string");
    tensor.dtype = entry["dtype"].get<std::string>();
    const size_t element = dtype_size(tensor.dtype);
    if (element == 0) fail(at + "unknown dtype " + tensor.dtype);
    if (!shape.is_array() || shape.size() > 8) fail(at + "shape is no list of at most 8 sizes");
    uint64_t size = element;
    for (const Header& s : shape) {
      if (!s.is_number_unsigned() || s.get<uint64_t>() > INT64_MAX) fail(at + "shape has an entry that is no size");
      tensor.shape.push_back(static_cast<int64_t>(s.get<uint64_t>()));
      if (__builtin_mul_overflow(size, s.get<uint64_t>(), &size)) fail(at + "its size overflows");
    }
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      fail(at + "data_offsets are no pair of offsets");
    }
    const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
    if (begin > end || end > data_size) {
      fail(at + "its bytes " + std::to_string(begin) + ".." + std::to_string(end) + " are outside the " +
           std::to_string(data_size) + " bytes of data");
    }
    if (end - begin != size)
      fail(at + "expected " + std::to_string(size) + " bytes, found " + std::to_string(end - begin));
    tensor.begin = data_start + begin;
    tensor.end = data_start + end;
    all.push_back(std::move(tensor));
  }
  std::sort(all.begin(), all.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = data_start;
  for (TensorInfo& tensor : all) {
    if (tensor.begin != at) fail("tensor '" + tensor.name + "' overlaps another or leaves a hole");
    at = tensor.end;
    if (tensor.name.starts_with(kPadPrefix)) continue;
    by_name_[tensor.name] = tensors_.size();
    tensors_.push_back(std::move(tensor));
  }
  if (at != bytes.size()) fail("expected " + std::to_string(at) + " bytes, found " + std::to_string(bytes.size()));
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const TensorInfo& SafetensorsFile::at(const std::string& name) const {
  const TensorInfo* tensor = find(name);
  if (!tensor) throw Error(ErrorCode::kData, path().string() + " has no tensor '" + name + "'");
  return *tensor;
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  return file_.bytes().subspan(tensor.begin, tensor.end - tensor.begin);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  // Written as text: an ordered JSON object would compare each name with all before it.
  std::string header = "{";
  const auto add = [&](const std::string& name, const Json& entry) {
    header += (header.size() > 1 ? "," : "") + Json(name).dump() + ":" + entry.dump();
  };
  if (!metadata.empty()) add("__metadata__", metadata);
  std::set<std::string> names;
  uint64_t offset = 0;  // the data starts on a page, so offsets in the data and in the file agree modulo the page
  for (const TensorToWrite& tensor : tensors) {
    const uint64_t pad = tensor.page_start ? (kPage - offset % kPage) % kPage : 0;
    const uint64_t size = dtype_size(tensor.dtype) * static_cast<uint64_t>(num_elements(tensor.shape));
    TESSERA_CHECK(!tensor.name.starts_with(kPadPrefix) && names.insert(tensor.name).second, tensor.name);
    extents_.push_back({pad, size});
    if (pad > 0) {
      add(kPadPrefix + std::to_string(extents_.size()),
          {{"dtype", "U8"}, {"shape", {pad}}, {"data_offsets", {offset, offset + pad}}});
      offset += pad;
    }
    add(tensor.name, {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + size}}});
    offset += size;
  }
  header += "}";
  header.append((kPage - (header.size() + 8) % kPage) % kPage, ' ');
  const uint64_t size = header.size();
  file_.write({reinterpret_cast<const char*>(&size), 8});
  file_.write(header);
  begin_tensor();
}

void SafetensorsWriter::begin_tensor() {
  written_ = 0;
  for (; tensor_ < extents_.size(); ++tensor_) {
    file_.write(std::string(extents_[tensor_].pad, '\0'));
    if (extents_[tensor_].size > 0) break;
  }
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  TESSERA_CHECK(tensor_ < extents_.size() && bytes.size() <= extents_[tensor_].size - written_, "too many bytes");
  file_.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  written_ += bytes.size();
  if (written_ == extents_[tensor_].size) ++tensor_, begin_tensor();
}

void SafetensorsWriter::close() {
  TESSERA_CHECK(tensor_ == extents_.size(), "a tensor isn't written whole");
  file_.close();
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter file(path, tensors, metadata);
  for (const TensorToWrite& tensor : tensors) file.write(tensor.bytes);
  file.close();
}

}  // namespace tessera
