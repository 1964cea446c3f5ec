#include "base/event_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "base/files.h"

namespace tessera {
namespace {

class EventFileTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("tessera_event_file_test." + std::to_string(::getpid()));
};

TEST_F(EventFileTest, CrcOfTheStandardsExamples) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(""), 0u);
}

// The payloads of a file's records; every length and both checks of each are verified.
std::vector<std::string> records(const std::filesystem::path& path) {
  const std::string file = read_file(path);
  const auto masked = [](std::string_view bytes) {
    const uint32_t crc = crc32c(bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
  };
  const auto u32 = [&](size_t at) {
    uint32_t value;
    std::memcpy(&value, file.data() + at, 4);
    return value;
  };
  std::vector<std::string> payloads;
  for (size_t at = 0; at < file.size();) {
    uint64_t length;
    EXPECT_LE(at + 16, file.size());
    std::memcpy(&length, file.data() + at, 8);
    EXPECT_EQ(u32(at + 8), masked(std::string_view(file).substr(at, 8)));
    payloads.push_back(file.substr(at + 12, length));
    EXPECT_EQ(u32(at + 12 + length), masked(payloads.back()));
    at += 16 + length;
  }
  return payloads;
}

TEST_F(EventFileTest, WritesTheWireFormat) {
  std::filesystem::path path;
  {
    EventFile file(folder_);
    file.scalar("a/b", 300, 1.5);
    path = file.path();
  }
  EXPECT_EQ(path.filename(), "events.out.tfevents.000001");
  const auto payloads = records(path);
  ASSERT_EQ(payloads.size(), 2u);
  EXPECT_EQ(payloads[0][0], '\x09');  // wall_time, 8 bytes
  EXPECT_EQ(payloads[0].substr(9), std::string("\x10\x00\x1a\x0d", 4) + "brain.Event:2");
  // step 300 = AC 02; summary of 12 bytes; value of 10: tag "a/b", simple_value 1.5f = 3FC00000
  EXPECT_EQ(payloads[1].substr(9), std::string("\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03"
                                               "a/b"
                                               "\x15\x00\x00\xc0\x3f",
                                               17));
}

TEST_F(EventFileTest, GoingOnOpensTheNextFile) {
  EventFile(folder_).scalar("loss", 1, 2.0);
  EventFile second(folder_, 1);
  second.scalar("loss", 1, 3.0);
  second.flush();
  EXPECT_EQ(second.path().filename(), "events.out.tfevents.000002");
  const auto payloads = records(second.path());
  ASSERT_EQ(payloads.size(), 3u);
  EXPECT_EQ(payloads[1].substr(9), std::string("\x10\x01\x3a\x02\x08\x01", 6));  // session_log {status: START}
  EXPECT_EQ(records(folder_ / "events.out.tfevents.000001").size(), 2u);
}

TEST_F(EventFileTest, NamesThePathThatCantBeWritten) {
  EXPECT_THROW(EventFile("/dev/null/run"), Error);
  EXPECT_THROW(EventFile("/proc/no-such-folder"), Error);
}

}  // namespace
}  // namespace tessera
