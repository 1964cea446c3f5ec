// A file read past the page cache, so that what a program reads on demand costs no memory beside its own buffers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace tessera {

inline constexpr int64_t kPageBytes = 4096;  // what O_DIRECT wants offsets and buffers to be multiples of
inline constexpr int64_t whole_pages(int64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

class DirectFile {
 public:
  // Throws Error{kFile}. Where the file system has no O_DIRECT it reads as usual and drops the cached pages.
  explicit DirectFile(const std::filesystem::path& path);
  ~DirectFile();
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  bool is_direct() const { return is_direct_; }
  // Bytes [offset, offset + size) into `out`; offset and `out` are multiples of kPageBytes, and `out` has room for
  // whole pages. Throws Error{kFile} when the file ends before that. Any thread.
  void read(int64_t offset, int64_t size, std::byte* out) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  bool is_direct_ = true;
};

}  // namespace tessera
