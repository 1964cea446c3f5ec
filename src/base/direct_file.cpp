#include "base/direct_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/file_error.h"

namespace tessera {

DirectFile::DirectFile(const std::filesystem::path& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd_ < 0 && errno == EINVAL) {
    is_direct_ = false;
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  if (fd_ < 0) throw_file_error("cannot open", path);
}

DirectFile::~DirectFile() { ::close(fd_); }

void DirectFile::read(int64_t offset, int64_t size, std::byte* out) const {
  TESSERA_CHECK(offset % kPageBytes == 0 && reinterpret_cast<uintptr_t>(out) % kPageBytes == 0, "whole pages");
  const int64_t room = whole_pages(size);
  for (int64_t done = 0; done < size;) {
    const ssize_t count = ::pread(fd_, out + done, static_cast<size_t>(room - done), offset + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_file_error("cannot read", path_);
    done += count;
    // Less than whole pages come only at the file's end.
    if (done < size && (count == 0 || count % kPageBytes != 0)) {
      throw Error(ErrorCode::kFile, path_.string() + " was cut short while it was in use",
                  "another program writes to it; put the whole file back and start again");
    }
  }
  if (!is_direct_) ::posix_fadvise(fd_, offset, room, POSIX_FADV_DONTNEED);
}

}  // namespace tessera
