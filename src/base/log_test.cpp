#include "base/log.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace tessera {
namespace {

TEST(LogTest, HumanCount) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(7), "7");
  EXPECT_EQ(human_count(850), "850");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1000), "1k");
  EXPECT_EQ(human_count(1234), "1.23k");
  EXPECT_EQ(human_count(999'400), "999k");
  EXPECT_EQ(human_count(999'600), "1M");  // never "1e+03k"
  EXPECT_EQ(human_count(1'200'000), "1.2M");
  EXPECT_EQ(human_count(3.4e9), "3.4B");
  EXPECT_EQ(human_count(1.2e12), "1.2T");
  EXPECT_EQ(human_count(1.5e15), "1500T");
}

TEST(LogTest, HumanBytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.0 kB");
  EXPECT_EQ(human_bytes(12'345'678), "12.3 MB");
  EXPECT_EQ(human_bytes(999'960), "1.0 MB");  // never "1000.0 kB"
  EXPECT_EQ(human_bytes(2.5e9), "2.5 GB");
  EXPECT_EQ(human_bytes(1.2e15), "1200.0 TB");
}

TEST(LogTest, HumanSeconds) {
  EXPECT_EQ(human_seconds(0), "0s");
  EXPECT_EQ(human_seconds(12.4), "12s");
  EXPECT_EQ(human_seconds(59.6), "1m00s");
  EXPECT_EQ(human_seconds(200), "3m20s");
  EXPECT_EQ(human_seconds(3599.7), "1h00m");
  EXPECT_EQ(human_seconds(3720), "1h02m");
  EXPECT_EQ(human_seconds(90000), "25h00m");
}

TEST(LogTest, WarnOnceSaysItOnce) {
  testing::internal::CaptureStderr();
  warn_once("a part is slow");
  warn_once("a part is slow");
  warn_once("another part is slow");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: a part is slow\nwarning: another part is slow\n");
}

TEST(LogTest, ParseBytes) {
  EXPECT_EQ(parse_bytes("512MiB"), 512 << 20);
  EXPECT_EQ(parse_bytes("0.5 GiB"), 512 << 20);
  EXPECT_EQ(parse_bytes("1.5gb"), 1'500'000'000);
  EXPECT_EQ(parse_bytes("100000"), 100'000);
  EXPECT_EQ(parse_bytes("3k"), 3000);
  for (const char* wrong : {"", "MiB", "-5", "nan", "inf", "1e30", "5 miles", "5i", "5x", "5MiBB"})
    EXPECT_FALSE(parse_bytes(wrong)) << wrong;
}

TEST(LogTest, BracesInTextAreText) {
  testing::internal::CaptureStderr();
  log_info(std::string_view("{\"a\": {}}"));
  log_info("{} of {}", "{x}", 3);
  log_warn("{}", "%s {0}");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "{\"a\": {}}\n{x} of 3\nwarning: %s {0}\n");
}

TEST(LogTest, ProgressPrintsPlainLinesWhenItIsTime) {
  if (stderr_is_terminal()) GTEST_SKIP() << "standard error is a terminal";
  testing::internal::CaptureStderr();
  {
    Progress now("fetch", 0.0), later("read", 3600.0);
    now.update(1, 4, "a.txt");
    later.update(1, 4, "a.txt");
    now.update(0, 0);
    later.finish("4 files");
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("fetch  25 %  a.txt  "), std::string::npos) << text;
  EXPECT_NE(text.find("fetch   0 %"), std::string::npos) << text;
  EXPECT_EQ(text.find("read  25"), std::string::npos) << text;
  EXPECT_NE(text.find("read done in 0s  4 files\n"), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos) << text;
}

// A run that is taken up at 90 % has as long to go as the last tenth takes.
TEST(LogTest, TimeLeftIsJudgedFromWhatIsDoneSinceTheBeginning) {
  if (stderr_is_terminal()) GTEST_SKIP() << "standard error is a terminal";
  testing::internal::CaptureStderr();
  Progress progress("train", 0.0);
  progress.begin_at(900'000);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  progress.update(900'001, 1'000'000, "x");  // 20 ms a step: over half an hour; as a share of all, 2 ms
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("m"), std::string::npos) << text;
}

}  // namespace
}  // namespace tessera
