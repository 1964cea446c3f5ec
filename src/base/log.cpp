#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <set>

namespace tessera {
namespace {

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_color_mt("tessera");
    made->set_pattern("%^%v%$");
    return made;
  }();
  return *instance;
}

}  // namespace

void log_info(std::string_view text) { logger().info("{}", text); }
void log_warn(std::string_view text) { logger().warn("warning: {}", text); }

void warn_once(const std::string& text) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (said.insert(text).second) log_warn(text);
}

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) != 0; }

std::string human_count(double count) {
  const char* suffix[] = {"", "k", "M", "B", "T"};
  int i = 0;
  while (count >= 999.5 && i < 4) count /= 1000, ++i;
  const bool whole = i == 0 || count >= 999.5;  // "1500T", not "1.5e+03T"
  return whole ? fmt::format("{:.0f}{}", count, suffix[i]) : fmt::format("{:.3g}{}", count, suffix[i]);
}

std::string human_bytes(double bytes) {
  const char* suffix[] = {"B", "kB", "MB", "GB", "TB"};
  int i = 0;
  while (bytes >= (i == 0 ? 999.5 : 999.95) && i < 4) bytes /= 1000, ++i;  // what would be printed as 1000
  return i == 0 ? fmt::format("{:.0f} {}", bytes, suffix[i]) : fmt::format("{:.1f} {}", bytes, suffix[i]);
}

std::string human_seconds(double seconds) {
  const int64_t s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::optional<int64_t> parse_bytes(std::string_view text) {
  double number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failed != std::errc() || !(number >= 0)) return {};
  std::string unit;
  for (const char* c = end; c != text.data() + text.size(); ++c) {
    if (*c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
  }
  if (unit.ends_with('b')) unit.pop_back();
  const bool is_binary = unit.ends_with('i');
  if (is_binary) unit.pop_back();
  if (unit.size() > 1 || (unit.empty() && is_binary)) return {};
  const size_t power = unit.empty() ? 0 : std::string_view("kmgt").find(unit);
  if (power == std::string_view::npos) return {};
  const double bytes =
      number * std::pow(is_binary ? 1024.0 : 1000.0, unit.empty() ? 0.0 : static_cast<double>(power + 1));
  if (!(bytes < 9e18)) return {};
  return static_cast<int64_t>(bytes);
}

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Progress::Progress(std::string what, double every_s)
    : what_(std::move(what)),
      every_s_(stderr_is_terminal() ? 0.2 : every_s),
      started_s_(now_s()),
      last_s_(started_s_) {}

Progress::~Progress() {
  if (open_line_) std::fputc('\n', stderr);
}

void Progress::begin_at(double done) {
  done_before_ = done;
  started_s_ = now_s();
}

void Progress::update(double done, double total, const std::string& detail) {
  const double now = now_s();
  if (now - last_s_ < every_s_) return;
  last_s_ = now;
  const double share = total > 0 ? done / total : 0;
  const double left_s = done > done_before_ ? (now - started_s_) * (total - done) / (done - done_before_) : 0;
  const std::string line = fmt::format("{} {:3.0f} %  {}  {} left", what_, 100 * share, detail, human_seconds(left_s));
  if (stderr_is_terminal()) {
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    open_line_ = true;
  } else {
    log_info(line);
  }
}

void Progress::finish(const std::string& detail) {
  if (open_line_) std::fputs("\r\033[K", stderr);
  open_line_ = false;
  log_info("{} done in {}  {}", what_, human_seconds(now_s() - started_s_), detail);
}

}  // namespace tessera
