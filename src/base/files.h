// Files: whole, mapped, atomic, and lines of (compressed) JSON. Every function throws Error{kFile} with the path.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

std::string read_file(const std::filesystem::path& path);

// Writes PATH.tmp, fsyncs and renames: a reader sees the old file or the whole new one. A full disk leaves the old.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);

// Throws Error{kFile} when write_file_atomic could not write the file: before long work. Leaves everything as it is.
void check_writable(const std::filesystem::path& path);

// fsyncs a file or folder, so that a rename after it can't be seen before it.
void sync_path(const std::filesystem::path& path);

// fsyncs everything below `folder`, then renames it to `target`, then fsyncs the parent. `target` must not exist.
void publish_folder(const std::filesystem::path& folder, const std::filesystem::path& target);

// 64-bit XXH3 as 16 hexadecimal digits.
std::string hash_hex(std::span<const std::byte> bytes);
std::string hash_hex(std::string_view text);

// A read-only memory map of a whole file. When somebody cuts the file short meanwhile, its missing pages read as zeros
// (instead of ending the program by SIGBUS), and check_intact() says so: call it after a read whose result matters.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  void check_intact() const;  // throws Error{kFile}; costs one load

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int guard_ = -1;  // its place in the table of guarded maps
};

// Appends to a file through a buffer; close() flushes, fsyncs and reports a full disk. Not closed = removed, so that
// nothing half-written is left behind. `.zst` names are compressed.
class FileWriter {
 public:
  explicit FileWriter(const std::filesystem::path& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(std::string_view bytes);
  void close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Calls `line` with each line (without its end) of a plain or .zst file, and its number from 1. Stops when it gives
// false.
void read_lines(const std::filesystem::path& path, const std::function<bool(std::string_view, int64_t)>& line);

}  // namespace tessera
