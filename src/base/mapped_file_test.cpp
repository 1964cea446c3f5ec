#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "base/error.h"
#include "base/files.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() : path_(fs::path(testing::TempDir()) / ("tessera-map-" + std::to_string(::getpid()))) {}
  ~MappedFileTest() override { fs::remove(path_); }
  static unsigned sum(const MappedFile& file) {
    unsigned total = 0;
    for (const std::byte b : file.bytes()) total += static_cast<unsigned>(b);
    return total;
  }
  fs::path path_;
};

TEST_F(MappedFileTest, ReadsAFile) {
  write_file_atomic(path_, std::string(100'000, '\1'));
  const MappedFile file(path_);
  EXPECT_EQ(sum(file), 100'000u);
  EXPECT_NO_THROW(file.check_intact());
  write_file_atomic(path_, "");
  EXPECT_EQ(MappedFile(path_).bytes().size(), 0u);
}

TEST_F(MappedFileTest, WhatIsNoFileIsNamed) {
  for (const fs::path& path : {path_ / "below", fs::path(testing::TempDir())}) {
    try {
      MappedFile file(path);
      ADD_FAILURE() << path;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kFile);
      EXPECT_NE(std::string(e.what()).find(path.string()), std::string::npos) << e.what();
    }
  }
}

TEST_F(MappedFileTest, AFileCutShortWhileMappedIsAnError) {
  write_file_atomic(path_, std::string(100'000, '\1'));
  const MappedFile file(path_);
  fs::resize_file(path_, 10'000);
  EXPECT_LE(sum(file), 12'288u);  // zeros behind the last page that is left
  try {
    file.check_intact();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kFile);
    EXPECT_NE(std::string(e.what()).find(path_.string()), std::string::npos) << e.what();
  }
  write_file_atomic(path_, "another");  // takes the place of a cut one
  EXPECT_NO_THROW(MappedFile(path_).check_intact());
}

TEST_F(MappedFileTest, EachThreadAndEachMapOfItsOwn) {
  write_file_atomic(path_, std::string(1 << 20, '\1'));
  const fs::path other = path_.string() + ".other";
  write_file_atomic(other, std::string(1 << 20, '\1'));
  const MappedFile cut(path_), whole(other);
  fs::resize_file(path_, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      EXPECT_EQ(sum(cut), 0u);
      EXPECT_EQ(sum(whole), 1u << 20);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THROW(cut.check_intact(), Error);
  EXPECT_NO_THROW(whole.check_intact());
  fs::remove(other);
}

// A bus error that is none of ours ends the program as ever.
TEST(MappedFileDeathTest, AnotherBusErrorStillKills) {
  const fs::path path = fs::path(testing::TempDir()) / ("tessera-map-death-" + std::to_string(::getpid()));
  write_file_atomic(path, "x");
  const MappedFile file(path);
  fs::remove(path);
  EXPECT_DEATH(raise(SIGBUS), "");
}

}  // namespace
}  // namespace tessera
