#include "apps/provenance.h"

#include <cstdio>
#include <cstdlib>

#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"

namespace tessera {
namespace {

std::string first_line_of(const std::string& command) {
  std::string text;
  if (FILE* pipe = ::popen(command.c_str(), "r")) {
    char buffer[256];
    if (std::fgets(buffer, sizeof buffer, pipe)) text = buffer;
    ::pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

std::string commit() {
  const char* root = std::getenv("TESSERA_ROOT");  // ./tessera sets it
  const std::string git = std::string("git -C '") + (root && *root ? root : ".") + "' ";
  std::string hash = first_line_of(git + "rev-parse --short HEAD 2>/dev/null");
  if (!first_line_of(git + "status --porcelain --untracked-files=no 2>/dev/null | head -1").empty()) hash += "+";
  return hash;
}

std::string date_today() { return first_line_of("date +%Y-%m-%d"); }

std::string machine_name(const std::string& device) {
  std::string model = "unknown CPU";
  read_lines("/proc/cpuinfo", [&](std::string_view line, int64_t) {
    if (!line.starts_with("model name")) return true;
    model = line.substr(line.find(':') + 2);
    return false;
  });
  const std::string gpu =
      device == "cuda"
          ? first_line_of("nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || echo a GPU") + ", "
          : "";
  return fmt::format("{}{}, {} cores", gpu, model, num_cpus());
}

}  // namespace tessera
