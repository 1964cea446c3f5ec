// tessera import: a model of another program as a model folder.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "apps/commands.h"
#include "base/json.h"
#include "base/log.h"
#include "core/import.h"

namespace tessera {
namespace {

struct ImportArguments {
  std::string source, out;
  ImportOptions options;
  bool json = false;
};

void run_import(const ImportArguments& args) {
  const double started = now_s();
  const ImportSummary summary = import_model(args.source, args.out, args.options);
  const Trunk& t = summary.architecture.trunk;
  const int components = num_components(summary.architecture.hierarchy);
  std::cout << fmt::format("{}: {} parameters, {} layers of width {}, {}, vocabulary {} ({}), context {}; {}\n",
                           args.out, human_count(static_cast<double>(summary.num_parameters)), t.num_layers, t.width,
                           components > 0 ? fmt::format("{} components", components) : "dense", t.vocab_size,
                           summary.tokenizer.empty() ? "no tokenizer" : "tokenizer " + summary.tokenizer,
                           t.context_length, human_seconds(now_s() - started));
  if (args.json) {
    std::cout << Json{{"path", args.out},
                      {"parameters", summary.num_parameters},
                      {"num_components", components},
                      {"tokenizer", summary.tokenizer}}
                     .dump()
              << '\n';
  }
}

}  // namespace

void add_import_command(CLI::App& app) {
  auto args = std::make_shared<ImportArguments>();
  CLI::App* command = app.add_subcommand("import", "A GGUF file or a Hugging Face folder (Llama, Mixtral) as a model");
  command->add_option("SOURCE", args->source, "a .gguf file, or a folder with config.json and *.safetensors")
      ->required();
  command->add_option("OUT", args->out, "the model folder to write; it must not be there yet")->required();
  command
      ->add_option("--dtype", args->options.dtype,
                   "of the matrices; auto: as the source has them, F32 where they are quantised")
      ->check(CLI::IsMember({"auto", "F32", "F16", "BF16"}))
      ->capture_default_str();
  command->add_flag("--json", args->json, "the last line is one JSON object");
  command->footer("Example: ./tessera import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2");
  command->callback([args] { run_import(*args); });
}

}  // namespace tessera
