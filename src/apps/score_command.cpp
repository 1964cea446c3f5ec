#include <iostream>

#include "apps/commands.h"
#include "base/error.h"
#include "base/threads.h"
#include "train/scorer.h"

namespace tessera {

void add_score_command(CLI::App& app) {
  struct Arguments {
    std::string model, out;
    int threads = 0;
    bool float64 = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("score", "Logits and routes of given tokens, for comparison with other programs");
  command->add_option("MODEL_OR_RUN", args->model, "a model folder or a run")->required();
  command->add_option("--logits", args->out, "write the logits of every text here (safetensors: text.0 [T, V], ...)");
  command->add_option("--threads", args->threads, "0: all CPUs")->check(CLI::Range(0, kMostThreads));
  command->add_flag("--float64", args->float64, "compute in double precision");
  command->footer(
      "Example: echo '[0, 17, 42]' | ./tessera score runs/demo --logits logits.safetensors\n"
      "Reads one JSON array of token ids a line; prints one JSON object a line with the route.");
  command->callback([args] {
    at::set_num_threads(args->threads > 0 ? args->threads : num_cpus());
    const ModelFolder folder = open_model(args->model);
    const at::ScalarType precision = args->float64 ? at::kDouble : at::kFloat;
    const Model model(folder.architecture, Parameters(folder, precision), precision);
    std::vector<at::Tensor> logits;
    std::vector<TensorToWrite> tensors;
    int64_t number = 0;
    for (std::string line; std::getline(std::cin, line);) {
      const std::string where = "standard input, line " + std::to_string(++number);
      const Json json = parse_json(line, where);
      std::vector<int32_t> tokens;
      if (json.is_array() && !json.empty() && std::all_of(json.begin(), json.end(), [](const Json& t) {
            return t.is_number_integer() && t.get<int64_t>() >= 0 && t.get<int64_t>() <= INT32_MAX;
          })) {
        tokens = json.get<std::vector<int32_t>>();
      } else {
        throw Error(ErrorCode::kData, where + ": expected an array of token ids");
      }
      Route route;
      logits.push_back(logits_of(model, tokens, {}, &route).contiguous());
      std::cout << Json{{"tokens", tokens.size()}, {"route", to_json(route)}}.dump() << "\n";
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      tensors.push_back({"text." + std::to_string(i), "F32", logits[i].sizes().vec(), tensor_bytes(logits[i])});
    }
    if (!args->out.empty()) write_safetensors(args->out, tensors, {});
  });
}

}  // namespace tessera
