// tessera data build | stats. (`data fetch` is Python: tools/corpus/fetch.py.)
#include <cstdlib>
#include <iostream>
#include <memory>

#include "apps/commands.h"
#include "base/error.h"
#include "base/log.h"
#include "data/build.h"
#include "data/totals.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

fs::path repository_root() {
  const char* root = std::getenv("TESSERA_ROOT");
  return root && *root ? fs::path(root) : fs::path(".");
}

struct BuildArguments {
  BuildOptions options;
  std::vector<std::string> inputs;
  bool json = false;
};

// "small", "full" and "mixed" stand for the sets that `data fetch` fetches, unless there is a file or folder of that
// name.
bool is_fetched_set(const std::string& input) {
  return (input == "small" || input == "full" || input == "mixed") && !fs::exists(input);
}

void run_build(BuildArguments& arguments) {
  BuildOptions& options = arguments.options;
  const fs::path data = repository_root() / "data";
  for (const std::string& input : arguments.inputs) {
    if (!is_fetched_set(input)) {
      options.inputs.push_back(input);
      continue;
    }
    options.inputs.push_back(data / input / "raw");
    if (!fs::exists(options.inputs.back())) {
      throw Error(ErrorCode::kFile, "the set \"" + input + "\" is not there: no " + options.inputs.back().string(),
                  "./tessera data fetch " + input);
    }
    if (options.out.empty() && arguments.inputs.size() == 1) options.out = data / input / "built";
  }
  if (options.out.empty()) {
    throw Error(ErrorCode::kUsage, "--out is missing: where should the data set go?",
                "./tessera data build my.jsonl.zst --out data/mine");
  }
  if (options.tokenizer.empty()) options.tokenizer = data / "tokenizers" / "tessera-4096.json";
  const Json report = build_data_set(options);
  if (arguments.json) std::cout << report.dump() << std::endl;
}

void run_stats(const fs::path& folder, bool json) {
  const Json stats = data_set_stats(folder);
  std::cout << format_rows(stats["domains"]) << "\n" << format_rows(stats["sources"]);
  if (json) std::cout << stats.dump() << std::endl;
}

}  // namespace

void add_data_commands(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "Curate, tokenise and describe text");
  data->require_subcommand(1);
  data->footer(
      "Example:\n  ./tessera data fetch small && ./tessera data build small && ./tessera data stats data/small/built");

  const auto build = std::make_shared<BuildArguments>();
  CLI::App* command = data->add_subcommand("build", "Documents (JSONL) -> curated, tokenised data set");
  command
      ->add_option("INPUT", build->inputs,
                   ".jsonl or .jsonl.zst files, folders of them, or fetched sets: small, full, mixed")
      ->required();
  command->add_option("--out", build->options.out, "folder to write (one fetched set: data/SET/built)");
  command->add_option("--tokenizer", build->options.tokenizer, "tokenizer.json (data/tokenizers/tessera-4096.json)");
  command->add_option("--domain", build->options.domain, "domain of documents that name none")->capture_default_str();
  command->add_option("--against", build->options.against,
                      "more evaluation texts (JSONL) that training must not overlap");
  command->add_flag("--skip-bad", build->options.skip_bad,
                    "drop lines that are no UTF-8 or no document, and count them");
  command->add_flag("--json", build->json, "print the report as the last line of output");
  command->footer(
      "A line is {\"text\": \"...\", \"domain\": \"...\", \"source\": \"...\", \"licence\": \"...\", \"split\": "
      "\"train\"}; only the text is\n"
      "required. Splits: train, heldout, cross. Without splits, a source of each domain is held out.\n"
      "Examples:\n  ./tessera data build small\n  ./tessera data build my.jsonl.zst --out data/mine --domain recipes");
  command->callback([build] { run_build(*build); });

  struct StatsArguments {
    fs::path folder;
    bool json = false;
  };
  const auto stats = std::make_shared<StatsArguments>();
  command = data->add_subcommand("stats", "Documents, tokens and bytes of a data set, its hashes verified");
  command->add_option("DIR", stats->folder, "the folder that `data build` wrote")->required();
  command->add_flag("--json", stats->json, "print them as the last line of output");
  command->footer("Example:\n  ./tessera data stats data/small/built --json");
  command->callback([stats] { run_stats(stats->folder, stats->json); });
}

}  // namespace tessera
