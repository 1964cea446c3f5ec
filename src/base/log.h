// What a person reads while a program works. Everything goes to standard error, so that standard output stays for
// results (text, tables, the JSON line).
#pragma once
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

void log_info(std::string_view text);
void log_warn(std::string_view text);
// Something degraded: says it once a process for each `text`.
void warn_once(const std::string& text);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_info(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}
template <typename... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_warn(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

bool stderr_is_terminal();

// "1.2M", "850", "3.4B": for counts in tables.
std::string human_count(double count);
// "12.3 MB" (powers of ten); "1h02m", "3m20s", "12s".
std::string human_bytes(double bytes);
std::string human_seconds(double seconds);
// The bytes of "512MiB", "1.5 GB", "100000": powers of ten, or of two with an i. Nothing when it is no such size.
std::optional<int64_t> parse_bytes(std::string_view text);

// The progress of long work: on a terminal one line that is overwritten, otherwise a plain line every `every_s`
// seconds.
class Progress {
 public:
  explicit Progress(std::string what, double every_s = 5.0);
  ~Progress();
  // The time left is judged from what is done from now on, not from what was done before (work that is taken up again).
  void begin_at(double done);
  // `done` of `total`; `detail` is printed behind the share and the time left. Prints only when it is time to.
  void update(double done, double total, const std::string& detail = "");
  void finish(const std::string& detail = "");

 private:
  std::string what_;
  double every_s_, started_s_, last_s_ = -1e9, done_before_ = 0;
  bool open_line_ = false;
};

double now_s();  // monotonic

// Adds the seconds that it lives to a total.
class Stopwatch {
 public:
  explicit Stopwatch(double& total_s) : total_s_(total_s), begin_s_(now_s()) {}
  ~Stopwatch() { total_s_ += now_s() - begin_s_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& total_s_;
  const double begin_s_;
};

}  // namespace tessera
