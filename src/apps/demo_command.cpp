// tessera demo: the main job on a small real corpus, from data that is there to a page that shows what came out.
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <iostream>

#include "apps/commands.h"
#include "apps/provenance.h"
#include "apps/report_page.h"
#include "apps/route_text.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/cost_model.h"
#include "core/tokenizer.h"
#include "data/evaluate.h"
#include "data/trigram.h"
#include "engine/generate.h"
#include "train/scorer.h"
#include "train/trainer.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kEvalBytesByDomain = 300'000;

struct Prompt {
  const char *domain, *text;
};
constexpr Prompt kPrompts[] = {
    {"code", "def mean(values):\n    \"\"\"Return the arithmetic mean of a list.\"\"\"\n"},
    {"mathematics", "Let f be a continuous function on the interval [0, 1]. Then the integral of f"},
    {"science", "The temperature of the sample is measured by the sensor, and the"},
    {"prose", "The old man looked out of the window at the sea, and said to"},
};

// The token trigram that saw exactly the tokens of the run: the same loader, the same steps.
Trigram count_trigram(const Config& config, int64_t steps) {
  const ShardSet shards(config.data.path, /*verify_hashes=*/false);
  Loader loader(shards, loader_options(config));
  TrigramCounts counts(shards.vocab_size(), shards.bos());
  const int rows = static_cast<int>(config.train.batch_tokens / config.model.trunk.context_length);
  for (int64_t i = 0; i < steps; ++i) counts.add(loader.next(rows));
  return Trigram(std::move(counts), config.model.trunk.context_length);
}

Evaluation evaluate_with(Scorer& scorer, const Tokenizer& tokenizer, const std::vector<Document>& documents,
                         const Hierarchy& hierarchy, const std::string& what) {
  EvaluateOptions options;
  options.hierarchy = hierarchy;
  Progress progress("evaluate " + what, 10);
  options.progress = [&](double done, double total) { progress.update(done, total); };
  const Evaluation evaluation = evaluate(scorer, tokenizer, documents, options);
  progress.finish();
  return evaluation;
}

// The step and evaluation lines of metrics.jsonl, in the page's form.
void read_history(const fs::path& run, Json& report) {
  report["history"] = report["evaluations"] = Json::array();
  read_lines(run / "metrics.jsonl", [&](std::string_view text, int64_t number) {
    Json line = parse_json(text, (run / "metrics.jsonl").string() + ", line " + std::to_string(number));
    if (!line.contains("eval")) {
      report["history"].push_back(line);
    } else {
      Json evaluation = {{"step", line["step"]}, {"tokens", line["tokens"]}};
      evaluation.update(line["eval"]);
      report["evaluations"].push_back(evaluation);
    }
    return true;
  });
}

int run_demo(const std::string& config_path, bool json) {
  const double started = now_s();
  const Config config = load_config(config_path);
  const fs::path run = fs::path("runs") / config.name;
  if (is_finished(run, config)) {
    log_info("{} is trained already: reused (remove the folder to train again)", run.string());
  } else {
    TrainOptions options;
    options.resume = !list_checkpoints(run).empty();
    const TrainResult result = train(config, options);
    if (!result.finished) return 130;
  }
  const ModelFolder folder = open_model(run);
  const Hierarchy& hierarchy = folder.architecture.hierarchy;
  const Tokenizer tokenizer = load_tokenizer(folder);
  const Json state = read_json_file(list_checkpoints(run).back() / "state.json");
  const Model model(folder.architecture, Parameters(folder), at::kFloat);
  at::set_num_threads(num_cpus());

  Json report = {{"title", "Tessera demo"},     {"machine", machine_name()},
                 {"commit", commit()},          {"date", date_today()},
                 {"seconds", state["seconds"]}, {"tokens", state["tokens"]},
                 {"config", state["config"]},   {"model", parameters_json(folder.architecture)}};
  const fs::path results_file = run / "results.json";
  Json results = fs::exists(results_file) ? read_json_file(results_file) : Json::object();
  if (results.value("config_hash", "") != config_hash(folder.config)) {
    std::vector<Document> documents;
    read_documents(fs::path(config.data.path) / "heldout.jsonl.zst",
                   [&](Document&& d) { documents.push_back(std::move(d)); });
    ModelScorer scorer(model);
    const Evaluation ours = evaluate_with(scorer, tokenizer, documents, hierarchy, "the model on held-out sources");
    Trigram trigram = count_trigram(config_from_json(state["config"]), state["step"].get<int64_t>());
    const Evaluation theirs = evaluate_with(trigram, tokenizer, documents, {}, "the trigram on the same text");
    results = {{"config_hash", config_hash(folder.config)}, {"final", to_json(ours)}, {"trigram", to_json(theirs)}};
    results["sample_text"] = Json::array();
    engine::Engine engine(open_model(run));
    for (const Prompt& prompt : kPrompts) {
      engine::GenerateOptions options;
      options.max_tokens = 90;
      options.sampler.repetition_penalty = 1.1;  // so young a model goes on copying what it wrote otherwise
      const engine::Generated generated = generate(engine, tokenizer, prompt.text, options);
      results["sample_text"].push_back(
          {{"domain", prompt.domain}, {"text", text_with_route(generated, tokenizer, folder.architecture, false)}});
      report["samples"].push_back(sample_json(generated, tokenizer, prompt.domain));
    }
    report["final"] = results["final"];
    report["trigram"] = results["trigram"];
    report["route_statistics"] = results["final"]["route_statistics"];
    read_history(run, report);
    report["data"] = read_json_file(fs::path(config.data.path) / "report.json");
    report["commands"] = {
        {{"what", "Generate from your own prompt"},
         {"command", "./tessera generate " + run.string() + " -p 'your text'"}},
        {{"what", "Evaluate your own documents"}, {"command", "./tessera eval " + run.string() + " --data FILE.jsonl"}},
        {{"what", "Train on your own text"}, {"command", "./tessera data build FILE.jsonl --out data/user/mine"}},
        {{"what", "See what a larger model costs"}, {"command", "./tessera estimate configs/seed/mhc-900b.json"}}};
    write_report_page(run / "report.html", report);
    write_json_file(results_file, results);
  }

  for (const Json& sample : results["sample_text"]) {
    std::cout << "\n--- " << sample["domain"].get<std::string>()
              << " (▸ marks where the model goes on; right: domain, most used components)\n"
              << sample["text"].get<std::string>();
  }
  std::cout << fmt::format("\n{:<14}{:>12}{:>12}{:>14}   bits per byte on held-out sources\n", "domain", "model",
                           "trigram", "difference");
  bool better = true;
  for (const auto& [domain, bpb] : results["final"]["bpb"].items()) {
    const double ours = bpb.get<double>(), theirs = results["trigram"]["bpb"][domain].get<double>();
    better = better && ours < theirs;
    std::cout << fmt::format("{:<14}{:>12.3f}{:>12.3f}{:>+13.1f} %\n", domain, ours, theirs, 100 * (ours / theirs - 1));
  }
  std::cout << (better ? "The model beats a Kneser-Ney token trigram that saw the same tokens in every domain.\n"
                       : "The model does not beat the trigram in every domain.\n");
  const char* since = std::getenv("TESSERA_DEMO_STARTED");  // when set-up was done: data included
  const double seconds = since ? static_cast<double>(std::time(nullptr)) - std::atof(since) : now_s() - started;
  std::cout << fmt::format("\nAfter set-up: {}. Page: {}\n", human_seconds(seconds), (run / "report.html").string());
  if (json) {
    std::cout << Json{{"bpb", results["final"]["bpb"]},
                      {"trigram_bpb", results["trigram"]["bpb"]},
                      {"better_everywhere", better},
                      {"seconds", seconds},
                      {"tokens", state["tokens"]},
                      {"run", run.string()},
                      {"page", (run / "report.html").string()}}
                     .dump()
              << "\n";
  }
  return 0;
}

}  // namespace

void add_demo_command(CLI::App& app) {
  struct Arguments {
    std::string config = "configs/demo.json";
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("demo", "The main job on a small real corpus: data, training, evaluation, text, a page");
  command->add_option("--config", args->config, "the configuration")->capture_default_str();
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer("Example: ./tessera demo\nA second call reuses what is there.");
  command->callback([args] {
    if (const int code = run_demo(args->config, args->json); code != 0) throw CLI::RuntimeError(code);
  });
}

}  // namespace tessera
