#include <iostream>

#include "apps/commands.h"
#include "apps/config_arguments.h"
#include "base/log.h"
#include "train/trainer.h"

namespace tessera {

void add_train_command(CLI::App& app) {
  struct Arguments {
    std::string config, init, add_domain;
    bool resume = false, json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("train", "Train a model: CONFIG [--key=value ...]");
  command->add_option("CONFIG", args->config, "a file of configs/")->required();
  command->add_flag("--resume", args->resume, "go on from the run's newest complete checkpoint");
  command->add_option("--init", args->init, "start from the weights of this model or run");
  command->add_option("--add-domain", args->add_domain,
                      "with --init: grow that model by a domain of this name; what it has is kept as it is");
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->allow_extras();
  command->footer(
      "Example: ./tessera train configs/demo.json --name=mine --train.steps=200 --train.optimizer.lr=0.002\n"
      "Ctrl-C finishes the step and saves; the same command with --resume goes on.\nConfig keys:\n" +
      config_help());
  command->callback([args, command] {
    TrainOptions options;
    options.resume = args->resume;
    if (!args->init.empty()) options.init = args->init;
    options.add_domain = args->add_domain;
    const TrainResult result = train(load_config(args->config, config_overrides(*command)), options);
    log_info("run: {}", result.run.string());
    if (args->json) {
      std::cout << Json{{"run", result.run.string()},
                        {"steps", result.steps},
                        {"tokens", result.tokens},
                        {"seconds", result.seconds},
                        {"finished", result.finished}}
                       .dump()
                << "\n";
    }
    if (!result.finished) throw CLI::RuntimeError(130);
  });
}

}  // namespace tessera
