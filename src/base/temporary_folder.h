// A folder for the length of a scope.
#pragma once
#include <filesystem>
#include <system_error>

namespace tessera {

// Fresh and empty; removed at the end of the scope, unless it was renamed away (published).
struct TemporaryFolder {
  explicit TemporaryFolder(std::filesystem::path p) : path(std::move(p)) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path path;
};

}  // namespace tessera
