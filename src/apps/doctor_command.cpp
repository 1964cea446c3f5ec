// tessera doctor: is this machine ready, and the command that mends what isn't.
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <vector>

#include "apps/commands.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/threads.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr double kLeastMemory = 3e9;  // of the demo: building tessera-train takes most
constexpr double kLeastDisk = 6e9;    // .venv 2 GB, build 1 GB, a small data set and a run

struct Finding {
  std::string name, value;
  bool ok = true;
  std::string fix;       // the command, or what to do, when not ok
  bool required = true;  // without it the machine isn't usable
};

fs::path root_folder() {
  const char* root = std::getenv("TESSERA_ROOT");
  return root != nullptr && *root != '\0' ? fs::path(root) : fs::current_path();
}

// The value behind the first line "KEY ... : VALUE" of a /proc file, "" when there is none.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t start = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

double memory_bytes(const std::string& key) {
  const std::string value = proc_value("/proc/meminfo", key);
  return value.empty() ? 0 : 1024 * std::strtod(value.c_str(), nullptr);
}

struct SimdFlag {
  const char *flag, *name;
};
constexpr SimdFlag kSimdFlags[] = {{"avx2", "AVX2"},
                                   {"avx512f", "AVX-512"},
                                   {"avx512_vnni", "AVX-512 VNNI"},
                                   {"avx_vnni", "AVX-VNNI"},
                                   {"avx512_bf16", "AVX-512 BF16"},
                                   {"amx_int8", "AMX INT8"},
                                   {"amx_bf16", "AMX BF16"},
                                   {"asimd", "NEON"}};

std::vector<std::string> simd_names() {
  std::string flags = " " + proc_value("/proc/cpuinfo", "flags") + " " + proc_value("/proc/cpuinfo", "Features") + " ";
  std::vector<std::string> names;
  for (const SimdFlag& simd : kSimdFlags) {
    if (flags.find(" " + std::string(simd.flag) + " ") != std::string::npos) names.push_back(simd.name);
  }
  return names;
}

// Bytes a second that all cores together read from a buffer far larger than a cache; the best of a few passes.
double measure_read_bandwidth() {
  constexpr int64_t kWords = int64_t{32} << 20;  // 256 MB
  const int64_t num_slices = num_cpus(), slice = kWords / num_slices;
  std::vector<uint64_t> buffer(static_cast<size_t>(kWords), 1);
  std::vector<uint64_t> sums(static_cast<size_t>(num_slices));
  double best = 0;
  for (int pass = 0; pass < 4; ++pass) {
    const double start = now_s();
    parallel_for(num_slices, [&](int64_t s) {
      uint64_t sum[4] = {};  // independent sums, so that the loads aren't serialised by the addition
      const uint64_t* words = buffer.data() + s * slice;
      for (int64_t i = 0; i + 4 <= slice; i += 4) {
        for (int j = 0; j < 4; ++j) sum[j] += words[i + j];
      }
      sums[static_cast<size_t>(s)] = sum[0] + sum[1] + sum[2] + sum[3];
    });
    best = std::max(best, static_cast<double>(num_slices * slice) * 8 / (now_s() - start));
  }
  volatile uint64_t kept = sums[0];  // the sums are used: the loop stays
  (void)kept;
  return best;
}

std::string first_line_of(const char* command) {
  FILE* pipe = ::popen(command, "r");
  if (pipe == nullptr) return "";
  char buffer[256] = {};
  const bool has_line = std::fgets(buffer, sizeof buffer, pipe) != nullptr;
  while (std::fgetc(pipe) != EOF) {  // drained, so that the program isn't killed by a closed pipe
  }
  const int status = ::pclose(pipe);
  if (!has_line || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return "";
  std::string line = buffer;
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return line;
}

std::string torch_version(const fs::path& root) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root / ".venv" / "lib", ignored)) {
    std::ifstream file(entry.path() / "site-packages" / "torch" / "version.py");
    for (std::string line; std::getline(file, line);) {  // __version__ = '2.9.0+cpu'
      const size_t quote = line.find('\'');
      if (line.starts_with("__version__") && quote != std::string::npos)
        return line.substr(quote + 1, line.find('\'', quote + 1) - quote - 1);
    }
  }
  return "";
}

std::string build_type() {
#ifdef NDEBUG
  std::string type = "optimised, without assertions";
#else
  std::string type = "debug";
#endif
#if defined(__SANITIZE_ADDRESS__)
  type += ", address sanitizer";
#elif defined(__SANITIZE_THREAD__)
  type += ", thread sanitizer";
#endif
  return type + ", g++ " __VERSION__;
}

Finding find_tool(const std::string& name, const char* command, const std::string& package) {
  const std::string version = first_line_of(command);
  return {name, version.empty() ? "not found" : version, !version.empty(), "apt-get install -y " + package, true};
}

Finding find_data(const fs::path& root, const std::string& set) {
  Finding finding = {"data set " + set, "", true,
                     fmt::format("./tessera data fetch {0} && ./tessera data build {0}", set), false};
  const fs::path index = root / "data" / set / "built" / "index.json";
  if (!fs::exists(index)) {
    finding.ok = false;
    finding.value = fs::exists(root / "data" / set / "raw") ? "fetched, not built" : "not fetched";
    if (finding.value == "fetched, not built") finding.fix = "./tessera data build " + set;
    return finding;
  }
  try {
    const Json json = read_json_file(index);
    double tokens = 0;
    for (const Json& shard : json.at("shards")) tokens += shard.at("tokens").get<double>();
    finding.value = fmt::format("{} tokens, vocabulary {}", human_count(tokens), json.at("vocab_size").get<int64_t>());
  } catch (const std::exception&) {  // broken in whatever way: building it again mends it
    finding.ok = false;
    finding.value = index.string() + " is broken";
  }
  return finding;
}

std::vector<Finding> examine(const fs::path& root) {
  const double memory = memory_bytes("MemTotal"), available = memory_bytes("MemAvailable");
  std::error_code failed;
  const fs::space_info space = fs::space(root, failed);
  const double disk = failed ? 0 : static_cast<double>(space.available);
  const std::string cpu = proc_value("/proc/cpuinfo", "model name"), torch = torch_version(root);
  const std::vector<std::string> simd = simd_names();
  const bool has_simd = !simd.empty();
  return {
      {"CPU", fmt::format("{}, {} cores", cpu.empty() ? "unknown" : cpu, num_cpus()), true, "", true},
      {"SIMD", has_simd ? fmt::format("{}", fmt::join(simd, ", ")) : "none that matters", has_simd,
       "nothing to do: scalar kernels are used, slowly", false},
      {"memory", fmt::format("{}, {} available", human_bytes(memory), human_bytes(available)), memory >= kLeastMemory,
       "at least " + human_bytes(kLeastMemory) + " are needed to build and train", true},
      {"memory bandwidth", human_bytes(measure_read_bandwidth()) + "/s read by all cores (measured)", true, "", true},
      {"disk", human_bytes(disk) + " free at " + root.string(), disk >= kLeastDisk,
       "free some: " + human_bytes(kLeastDisk) + " hold set-up, the small data set and a run", true},
      {"this program", build_type(), true, "", true},
      find_tool("g++", "g++ --version 2>/dev/null", "g++"),
      find_tool("cmake", "cmake --version 2>/dev/null", "cmake"),
      find_tool("ninja", "ninja --version 2>/dev/null", "ninja-build"),
      {"torch (LibTorch)", torch.empty() ? "not found in " + (root / ".venv").string() : torch, !torch.empty(),
       "./tessera setup, or any command that trains; running models takes none", false},
      find_data(root, "small"),
      find_data(root, "full"),
  };
}

void run_doctor(bool json_wanted) {
  const std::vector<Finding> findings = examine(root_folder());
  bool usable = true;
  Json json = {{"usable", true}, {"findings", Json::array()}};
  for (const Finding& f : findings) {
    usable = usable && (f.ok || !f.required);
    std::cout << fmt::format("  {:<8}{:<18}{}\n", f.ok ? "ok" : "missing", f.name, f.value);
    if (!f.ok) std::cout << fmt::format("  {:<8}{:<18}fix: {}\n", "", "", f.fix);
    json["findings"].push_back({{"name", f.name}, {"ok", f.ok}, {"required", f.required}, {"value", f.value}});
    if (!f.ok) json["findings"].back()["fix"] = f.fix;
  }
  std::cout << (usable ? "This machine is ready.\n" : "This machine is not ready: see the fixes above.\n");
  json["usable"] = usable;
  if (json_wanted) std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  std::cout.flush();
  if (!usable) throw CLI::RuntimeError(2);
}

}  // namespace

void add_doctor_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command =
      app.add_subcommand("doctor", "Is this machine ready? Each finding with the command that mends it");
  command->add_flag("--json", *json, "The last line is one JSON object");
  command->footer(
      "Example:\n  tessera doctor\nIt looks at TESSERA_ROOT or else the current folder. Exit code 0: usable; 2: not.");
  command->callback([json] { run_doctor(*json); });
}

}  // namespace tessera
