#include <cstdio>
#include <fstream>
#include <iostream>

#include "apps/commands.h"
#include "apps/config_arguments.h"
#include "base/log.h"
#include "base/threads.h"
#include "train/route_bench.h"
#include "train/torch.h"

namespace tessera {
namespace {

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  }
  return "unknown";
}

std::string commit() {
  const char* root = std::getenv("TESSERA_ROOT");
  const std::string command =
      "git -C '" + std::string(root && *root ? root : ".") + "' rev-parse --short HEAD 2>/dev/null";
  std::string text;
  if (FILE* pipe = ::popen(command.c_str(), "r")) {
    char buffer[64];
    if (std::fgets(buffer, sizeof buffer, pipe)) text = buffer;
    ::pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "unknown" : text;
}

}  // namespace

void add_bench_commands(CLI::App& app) {
  struct Arguments {
    std::string config = "configs/demo.json";
    RouteBenchOptions options;
    int threads = 0;
    bool json = false;
  };
  CLI::App* bench = app.add_subcommand("bench", "Benchmarks: route");
  bench->require_subcommand(1);
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      bench->add_subcommand("route", "Time of progressive routing against one monolithic router, in turns");
  command->add_option("CONFIG", args->config, "a file of configs/")->capture_default_str();
  command->add_option("--monolithic-width", args->options.monolithic_width, "of the monolithic router; 0: the trunk's")
      ->check(CLI::Range(0, 1 << 16));
  command->add_option("--monolithic-layers", args->options.monolithic_layers, "its blocks")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--components", args->options.components, "components a layer to try")
      ->delimiter(',')
      ->check(CLI::Range(8, 1 << 14))
      ->capture_default_str();
  command->add_option("--repeats", args->options.repeats, "turns")->check(CLI::Range(1, 10000))->capture_default_str();
  command->add_option("--threads", args->threads, "0: all CPUs");
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->allow_extras();
  command->footer("Example: ./tessera bench route configs/mini.json --json");
  command->callback([args, command] {
    Config config = load_config(args->config, config_overrides(*command));
    if (config.model.trunk.vocab_size == 0) config.model.trunk.vocab_size = 4096;
    const int threads = args->threads > 0 ? args->threads : num_cpus();
    at::set_num_threads(threads);
    args->options.say = [](const std::string& line) { std::cout << line << std::endl; };
    Json report = bench_routers(config.model, args->options);
    report["threads"] = threads;
    report["cpu"] = cpu_name();
    report["commit"] = commit();
    if (args->json) std::cout << report.dump() << "\n";
  });
}

}  // namespace tessera
