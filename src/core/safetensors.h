// The safetensors format (8 bytes of header length, a JSON header, the tensors' bytes without holes), read through a
// memory map. Goals: every count, size and offset is checked against the file's length before anything is used; a
// tensor can begin on a page. Non-goals: tensors above 2^63 bytes, big endian machines.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"

namespace tessera {

struct TensorInfo {
  std::string name;
  std::string dtype;  // "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file
};

// Bytes of one element; 0 for a dtype we don't know.
size_t dtype_size(std::string_view dtype);

class SafetensorsFile {
 public:
  // Throws Error{kData} naming the tensor and what was expected and found; Error{kFile} when it can't be read.
  explicit SafetensorsFile(const std::filesystem::path& path);
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // by offset, pads left out
  const TensorInfo* find(const std::string& name) const;               // nullptr: none
  const TensorInfo& at(const std::string& name) const;                 // throws Error{kData}
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_.path(); }
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

struct TensorToWrite {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  bool page_start = false;  // begin on a 4,096-byte boundary, behind an explicit pad tensor ("pad.N")
};

// Writes beside and renames in close(); for tensors that aren't in memory at once. `bytes` of the list are ignored.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                    const std::map<std::string, std::string>& metadata);
  // The next bytes of the tensors, in the order of the list; a call doesn't reach over a tensor's end.
  void write(std::span<const std::byte> bytes);
  void close();

 private:
  struct Extent {
    uint64_t pad, size;
  };
  void begin_tensor();  // the next that has bytes, with its pad; those without are only their pads
  FileWriter file_;
  std::vector<Extent> extents_;
  size_t tensor_ = 0;     // the one being written
  uint64_t written_ = 0;  // bytes of it
};

// The same for tensors in memory.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace tessera
