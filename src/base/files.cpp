#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_error.h"

namespace tessera {
namespace fs = std::filesystem;

void throw_file_error(const std::string& what, const fs::path& path) {
  const int code = errno;
  const std::string hint = code == ENOSPC   ? "free some disk space and run the command again"
                           : code == ENOENT ? "check the path"
                           : code == EACCES ? "check the permissions"
                                            : "";
  throw Error(ErrorCode::kFile, what + " " + path.string() + ": " + std::strerror(code), hint);
}

namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

void write_all(int fd, const char* data, size_t size, const fs::path& path) {
  while (size > 0) {
    const ssize_t n = ::write(fd, data, size);
    if (n < 0) {
      if (errno == EINTR) continue;
      throw_file_error("cannot write", path);
    }
    data += n;
    size -= static_cast<size_t>(n);
  }
}

bool is_zst(const fs::path& path) { return path.extension() == ".zst"; }

}  // namespace

std::string read_file(const fs::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) throw_file_error("cannot open", path);
  struct stat info;
  if (::fstat(file.fd, &info) != 0) throw_file_error("cannot stat", path);
  if (S_ISDIR(info.st_mode)) {
    errno = EISDIR;
    throw_file_error("cannot read", path);
  }
  std::string bytes;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(file.fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("cannot read", path);
    if (n == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(n));
  }
}

void write_file_atomic(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = path.string() + ".tmp";
  try {
    Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    if (file.fd < 0) throw_file_error("cannot create", temporary);
    write_all(file.fd, bytes.data(), bytes.size(), temporary);
    if (::fsync(file.fd) != 0) throw_file_error("cannot sync", temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw_file_error("cannot rename to", path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void check_writable(const fs::path& path) {
  const fs::path temporary = path.string() + ".tmp";
  const Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
  if (file.fd < 0) throw_file_error("cannot create", path);
  ::unlink(temporary.c_str());
}

void sync_path(const fs::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) throw_file_error("cannot open", path);
  if (::fsync(file.fd) != 0) throw_file_error("cannot sync", path);
}

void publish_folder(const fs::path& folder, const fs::path& target) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) sync_path(entry.path());
  sync_path(folder);
  if (::rename(folder.c_str(), target.c_str()) != 0) throw_file_error("cannot rename to", target);
  sync_path(fs::absolute(target).parent_path());
}

std::string hash_hex(std::span<const std::byte> bytes) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(XXH3_64bits(bytes.data(), bytes.size())));
  return text;
}

std::string hash_hex(std::string_view text) { return hash_hex(std::as_bytes(std::span(text.data(), text.size()))); }

struct FileWriter::State {
  fs::path path, temporary;
  int fd = -1;
  std::string pending;
  ZSTD_CCtx* compressor = nullptr;
  std::vector<char> compressed;

  void flush(bool end) {
    if (!compressor) {
      write_all(fd, pending.data(), pending.size(), temporary);
    } else {
      ZSTD_inBuffer in{pending.data(), pending.size(), 0};
      size_t left;
      do {
        ZSTD_outBuffer out{compressed.data(), compressed.size(), 0};
        left = ZSTD_compressStream2(compressor, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
        TESSERA_CHECK(!ZSTD_isError(left), ZSTD_getErrorName(left));
        write_all(fd, compressed.data(), out.pos, temporary);
      } while (end ? left != 0 : in.pos != in.size);
    }
    pending.clear();
  }
};

FileWriter::FileWriter(const fs::path& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->temporary = path.string() + ".tmp";
  state_->fd = ::open(state_->temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (state_->fd < 0) throw_file_error("cannot create", state_->temporary);
  if (is_zst(path)) {
    state_->compressor = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(state_->compressor, ZSTD_c_compressionLevel, 3);
    state_->compressed.resize(ZSTD_CStreamOutSize());
  }
}

FileWriter::~FileWriter() {
  if (state_->compressor) ZSTD_freeCCtx(state_->compressor);
  if (state_->fd < 0) return;
  ::close(state_->fd);
  ::unlink(state_->temporary.c_str());
}

void FileWriter::write(std::string_view bytes) {
  state_->pending.append(bytes);
  if (state_->pending.size() >= (1u << 20)) state_->flush(false);
}

void FileWriter::close() {
  state_->flush(true);
  if (::fsync(state_->fd) != 0) throw_file_error("cannot sync", state_->temporary);
  if (::rename(state_->temporary.c_str(), state_->path.c_str()) != 0)
    throw_file_error("cannot rename to", state_->path);
  ::close(std::exchange(state_->fd, -1));  // only now: the destructor removes the temporary while it is open
}

void read_lines(const fs::path& path, const std::function<bool(std::string_view, int64_t)>& line) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) throw_file_error("cannot open", path);
  const bool compressed = is_zst(path);
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> decompressor(compressed ? ZSTD_createDCtx() : nullptr,
                                                                    ZSTD_freeDCtx);
  std::vector<char> in(1 << 17), out(1 << 18);
  std::string carry;
  int64_t number = 0;
  bool frame_open = compressed;  // no bytes at all are no frame either
  auto feed = [&](std::string_view bytes) {
    for (;;) {
      const size_t end = bytes.find('\n');
      if (end == std::string_view::npos) break;
      carry.append(bytes.substr(0, end));
      bytes.remove_prefix(end + 1);
      if (!line(carry, ++number)) return false;
      carry.clear();
    }
    carry.append(bytes);
    return true;
  };
  for (;;) {
    const ssize_t n = ::read(file.fd, in.data(), in.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("cannot read", path);
    if (n == 0) break;
    if (!compressed) {
      if (!feed({in.data(), static_cast<size_t>(n)})) return;
      continue;
    }
    ZSTD_inBuffer input{in.data(), static_cast<size_t>(n), 0};
    bool more = true;
    while (input.pos < input.size || more) {
      ZSTD_outBuffer output{out.data(), out.size(), 0};
      const size_t left = ZSTD_decompressStream(decompressor.get(), &output, &input);
      if (ZSTD_isError(left)) {
        throw Error(ErrorCode::kData, path.string() + " is no valid zstd file: " + ZSTD_getErrorName(left));
      }
      frame_open = left != 0;
      more = frame_open && output.pos == output.size;  // a call behind the frame's end would ask for another frame
      if (!feed({out.data(), output.pos})) return;
    }
  }
  if (frame_open) throw Error(ErrorCode::kData, path.string() + " is cut short: its last zstd frame has no end");
  if (!carry.empty()) line(carry, ++number);
}

}  // namespace tessera
