// MappedFile of files.h. A page of a map that lies behind the file's end gives SIGBUS when it is read. The handler puts
// pages of zeros in its place and notes it, so that the reader goes on and then finds out.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>

#include "base/error.h"
#include "base/file_error.h"
#include "base/files.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

// Read by the signal handler, so no locks: a slot is filled before `begin` is set and emptied after it is cleared.
struct GuardedMap {
  std::atomic<uintptr_t> begin{0};  // 0: the slot is free
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> is_cut{false};
};
constexpr size_t kMaxGuarded = 4096;  // maps beyond that number are not guarded
std::array<GuardedMap, kMaxGuarded> guarded;
std::mutex guarded_mutex;  // of those that fill and empty slots
struct sigaction previous_action;

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (GuardedMap& map : guarded) {
    const uintptr_t begin = map.begin.load(), end = map.end.load();
    if (begin == 0 || address < begin || address >= end) continue;
    const uintptr_t page = address & ~(static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE)) - 1);
    map.is_cut.store(true);
    void* zeros = ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    errno = saved_errno;
    if (zeros != MAP_FAILED) return;
    break;
  }
  // Not ours: what was to happen before us happens now.
  if (previous_action.sa_flags & SA_SIGINFO) return previous_action.sa_sigaction(signal, info, context);
  if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN)
    return previous_action.sa_handler(signal);
  ::signal(SIGBUS, SIG_DFL);  // on return the same read faults again and ends the program
}

int guard(const std::byte* data, size_t size) {
  const std::lock_guard lock(guarded_mutex);
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &previous_action) == 0;
  }();
  if (!installed) return -1;
  for (size_t i = 0; i < kMaxGuarded; ++i) {
    if (guarded[i].begin.load() != 0) continue;
    guarded[i].is_cut.store(false);
    guarded[i].end.store(reinterpret_cast<uintptr_t>(data) + size);
    guarded[i].begin.store(reinterpret_cast<uintptr_t>(data));
    return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_file_error("cannot open", path);
  struct stat info;
  const bool is_known = ::fstat(fd, &info) == 0, is_file = is_known && S_ISREG(info.st_mode);
  size_ = is_file ? static_cast<size_t>(info.st_size) : 0;
  void* data = size_ > 0 ? ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0) : nullptr;
  const int code = errno;
  ::close(fd);
  errno = code;
  if (!is_known) throw_file_error("cannot stat", path);
  if (!is_file) throw Error(ErrorCode::kFile, path.string() + " is no regular file");
  if (data == MAP_FAILED) throw_file_error("cannot map", path);
  data_ = static_cast<const std::byte*>(data);
  if (data_) guard_ = guard(data_, size_);
}

MappedFile::~MappedFile() {
  if (guard_ >= 0) guarded[static_cast<size_t>(guard_)].begin.store(0);
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::check_intact() const {
  if (guard_ < 0 || !guarded[static_cast<size_t>(guard_)].is_cut.load(std::memory_order_relaxed)) return;
  throw Error(ErrorCode::kFile, path_.string() + " was cut short while it was in use",
              "another program writes to it; put the whole file back and start again");
}

}  // namespace tessera
