#include "base/direct_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/files.h"

namespace tessera {
namespace {

TEST(DirectFile, ReadsFromAnyPageToAnyLength) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("tessera-direct-" + std::to_string(::getpid()));
  std::string text;
  for (int i = 0; i < 10000; ++i) text += static_cast<char>(i * 7 % 251);
  write_file_atomic(path, text);
  const DirectFile file(path);
  const std::unique_ptr<std::byte, decltype(&std::free)> buffer(
      static_cast<std::byte*>(std::aligned_alloc(kPageBytes, 4 * kPageBytes)), &std::free);
  for (const auto& [offset, size] : {std::pair<int64_t, int64_t>{0, 10000}, {0, 5}, {4096, 4096}, {8192, 1808}}) {
    file.read(offset, size, buffer.get());
    EXPECT_EQ(std::string_view(reinterpret_cast<char*>(buffer.get()), static_cast<size_t>(size)),
              std::string_view(text).substr(static_cast<size_t>(offset), static_cast<size_t>(size)));
  }
  EXPECT_THROW(file.read(8192, 1809, buffer.get()), Error);
  EXPECT_THROW(file.read(12288, 1, buffer.get()), Error);
  EXPECT_THROW(DirectFile("no/such/file"), Error);
  std::filesystem::remove(path);
}

TEST(DirectFile, ReadsWhereTheFileSystemHasNoDirectReading) {
  const DirectFile file("/proc/version");
  EXPECT_FALSE(file.is_direct());
  const std::string text = read_file("/proc/version");
  const std::unique_ptr<std::byte, decltype(&std::free)> buffer(
      static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kPageBytes)), &std::free);
  file.read(0, static_cast<int64_t>(text.size()), buffer.get());
  EXPECT_EQ(std::string_view(reinterpret_cast<char*>(buffer.get()), text.size()), text);
}

}  // namespace
}  // namespace tessera
