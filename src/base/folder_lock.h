// A folder that one process at a time works in.
#pragma once
#include <filesystem>

namespace tessera {

// Locked until the end of the scope or of the process, however it ends. Throws Error{kUsage} when another holds it.
// File systems without locks (some network ones) are taken as they are.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace tessera
