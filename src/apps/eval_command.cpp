#include <filesystem>
#include <iostream>

#include "apps/commands.h"
#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/config.h"
#include "core/tokenizer.h"
#include "data/evaluate.h"
#include "data/suite.h"
#include "train/scorer.h"

namespace tessera {
namespace {

// The data folder that a run names in its config.
std::filesystem::path data_of_run(const std::filesystem::path& run) {
  if (std::filesystem::exists(run / "config.json")) {
    const Json config = read_json_file(run / "config.json");
    if (config.contains("data")) return config_from_json(config).data.path;
  }
  throw Error(ErrorCode::kUsage, "--data is missing: " + run.string() + " is no run that would name its data",
              "--data data/full/built");
}

void run_cross_suite(const std::filesystem::path& model_or_run, const std::string& data, bool json) {
  const Suite suite = load_suite(data.empty() ? data_of_run(model_or_run) : std::filesystem::path(data));
  const ModelFolder folder = open_model(model_or_run);
  const Tokenizer tokenizer = Tokenizer::from_file(folder.tokenizer());
  const Model model(folder.architecture, Parameters(folder), at::kFloat);
  ModelScorer scorer(model);
  Progress progress("evaluate");
  const SuiteResults results = run_suite(scorer, tokenizer, suite, folder.architecture.hierarchy,
                                         [&](double done, double total) { progress.update(done, total); });
  progress.finish();
  const Json figures = to_json(results, suite);
  for (const auto& [domain, bpb] : figures["bpb"].items())
    std::cout << fmt::format("{:<24}{:>8.4f} bits/byte, held-out sources\n", domain, bpb.get<double>());
  std::cout << fmt::format("{:<24}{:>8.4f} bits/byte, documents that mix domains\n", "cross",
                           figures["cross_bpb"].get<double>());
  for (const char* task : kChoiceTasks) {
    std::cout << fmt::format("{:<24}{:>7.1f} % of {} right (chance 25 %)\n", task,
                             100 * figures["cross_accuracy"][task].get<double>(), figures["items"][task].get<int>());
  }
  if (json) std::cout << figures.dump() << "\n";
}

}  // namespace

void add_eval_command(CLI::App& app) {
  struct Arguments {
    std::string model, data, suite;
    int64_t max_bytes = 0;
    int threads = 0;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "Bits per byte by domain on labelled documents");
  command->add_option("MODEL_OR_RUN", args->model, "a model folder or a run")->required();
  command->add_option("--data", args->data,
                      "FILE.jsonl or .jsonl.zst of {\"text\", \"domain\"}; with --suite: a data folder");
  command->add_option("--suite", args->suite, "cross: held-out and cross-domain bits per byte, multiple choice")
      ->check(CLI::IsMember({"cross"}));
  command->add_option("--max-bytes", args->max_bytes, "of each domain; 0: everything");
  command->add_option("--threads", args->threads, "0: all CPUs");
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer("Example: ./tessera eval runs/demo --data data/small/built/heldout.jsonl.zst --max-bytes 500000");
  command->callback([args] {
    at::set_num_threads(args->threads > 0 ? args->threads : num_cpus());
    if (args->suite == "cross") return run_cross_suite(args->model, args->data, args->json);
    if (args->data.empty()) throw Error(ErrorCode::kUsage, "--data is missing", "--data FILE.jsonl, or --suite cross");
    const ModelFolder folder = open_model(args->model);
    const Tokenizer tokenizer = load_tokenizer(folder);
    std::vector<Document> documents;
    read_documents(args->data, [&](Document&& d) { documents.push_back(std::move(d)); });
    const Model model(folder.architecture, Parameters(folder), at::kFloat);
    ModelScorer scorer(model);
    EvaluateOptions options;
    options.max_bytes_by_domain = args->max_bytes;
    options.hierarchy = folder.architecture.hierarchy;
    Progress progress("evaluate");
    options.progress = [&](double done, double total) { progress.update(done, total); };
    const Evaluation evaluation = evaluate(scorer, tokenizer, documents, options);
    progress.finish();
    std::cout << fmt::format("{:<14}{:>10}{:>12}{:>12}{:>14}\n", "domain", "documents", "bytes", "tokens", "bits/byte");
    for (size_t d = 0; d < evaluation.domains.size(); ++d) {
      const DomainSum& sum = evaluation.domains[d];
      std::cout << fmt::format("{:<14}{:>10}{:>12}{:>12}{:>14.4f}\n", sum.name, sum.documents,
                               human_bytes(static_cast<double>(sum.bytes)),
                               human_count(static_cast<double>(sum.tokens)), evaluation.bpb(static_cast<int>(d)));
    }
    std::cout << fmt::format("{:<14}{:>10}{:>12}{:>12}{:>14.4f}\n", "all", evaluation.documents.size(),
                             human_bytes(static_cast<double>(evaluation.bytes())),
                             human_count(static_cast<double>(evaluation.tokens())), evaluation.bpb_all());
    if (evaluation.route.document_accuracy() >= 0) {  // the documents have labels that the model knows
      std::cout << fmt::format("level 1 right: {:.1f} % of chunks, {:.1f} % of documents\n",
                               100 * evaluation.route.chunk_accuracy(), 100 * evaluation.route.document_accuracy());
    }
    if (!evaluation.route.empty()) std::cout << fmt::format("dead components: {}\n", evaluation.route.num_dead());
    if (args->json) std::cout << to_json(evaluation).dump() << "\n";
  });
}

}  // namespace tessera
