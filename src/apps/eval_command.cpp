#include <iostream>

#include "apps/commands.h"
#include "apps/evaluate_file.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/config.h"
#include "core/route.h"
#include "core/tokenizer.h"
#include "core/unicode.h"
#include "data/evaluate.h"
#include "data/suite.h"
#include "train/routing_suite.h"
#include "train/scorer.h"

namespace tessera {
namespace {

std::vector<Document> documents_of(const std::filesystem::path& file) {
  std::vector<Document> documents;
  read_documents(file, [&](Document&& d) { documents.push_back(std::move(d)); });
  return documents;
}

// The data folder of a run, "" when it isn't known (a model by itself).
std::string data_of_run(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "config.json";
  if (!std::filesystem::exists(file)) return "";
  const Json config = read_json_file(file);
  if (!config.contains("data") || !config["data"].is_object()) return "";
  const std::string path = config["data"].value("path", "");
  return std::filesystem::exists(std::filesystem::path(path) / "index.json") ? path : "";
}

void print_routing(const Json& r) {
  const auto number = [](const Json& value) {
    return value.is_number() ? fmt::format("{:.4f}", value.get<double>()) : std::string("-");
  };
  std::cout << fmt::format("level 1 right: documents {}, chunks {}, macro-F1 {}, calibration error {}\n",
                           number(r["accuracy_documents"]), number(r["accuracy_chunks"]), number(r["macro_f1"]),
                           number(r["ece"]));
  std::cout << fmt::format("beside it: linear baseline {}, teacher {}\n", number(r["linear_baseline_accuracy"]),
                           number(r["teacher_accuracy"]));
  if (r["teacher_accuracy"].is_number()) {
    std::cout << fmt::format("teacher {} parameters, {:.2f} ms a document; student {}, {:.2f} ms; they agree on {}\n",
                             human_count(r["teacher_parameters"].get<double>()),
                             r["teacher_ms_a_document"].get<double>(),
                             human_count(r["student_parameters"].get<double>()),
                             r["student_ms_a_document"].get<double>(), number(r["agreement"]));
  }
  std::cout << fmt::format("\n{:<14}", "is \\ chosen");
  for (const Json& name : r["domains"]) std::cout << fmt::format("{:>14}", name.get<std::string>());
  for (size_t d = 0; d < r["domains"].size(); ++d) {
    std::cout << fmt::format("\n{:<14}", r["domains"][d].get<std::string>());
    for (const Json& count : r["confusion"][d]) std::cout << fmt::format("{:>14}", count.get<int64_t>());
  }
  std::cout << "\n\n";
  for (const auto& [source, values] : r["by_source"].items())
    std::cout << fmt::format("{:<24}{:>6} documents{:>9.4f}\n", source, values["documents"].get<int64_t>(),
                             values["accuracy"].get<double>());
  std::cout << "\nregret in nats a token against   best single      oracle     uniform      random\n";
  for (const auto& [kind, values] : r["regret"].items()) {
    if (values.is_null()) continue;
    std::cout << fmt::format("{:<32}{:>12}{:>12}{:>12}{:>12}\n", kind, number(values["best_single"]),
                             number(values["oracle"]), number(values["uniform"]), number(values["random"]));
  }
  std::cout << fmt::format("dead components: {}\n", r["dead_components"].get<int>());
}

struct SuiteArguments {
  std::string model, data, mixed, train_data, teacher, decisions;
  int regret_texts = 64;
};

Json run_routing_suite(const SuiteArguments& args, const ModelFolder& folder) {
  const Tokenizer tokenizer = load_tokenizer(folder);
  const std::string known = data_of_run(args.model);
  const std::filesystem::path set = known.empty() ? "data/small/built" : known;
  const auto or_of_set = [&](const std::string& given, const char* name) {
    return given.empty() ? set / name : std::filesystem::path(given);
  };
  if (args.data.empty() && !std::filesystem::exists(set / "heldout.jsonl.zst"))
    throw Error(
        ErrorCode::kUsage, "--data is missing: which documents? (there is no " + set.string() + ")",
        "--data FILE.jsonl of {\"text\", \"domain\"}, or ./tessera data fetch small && ./tessera data build small");
  RoutingSuiteOptions options;
  options.documents = documents_of(or_of_set(args.data, "heldout.jsonl.zst"));
  const std::filesystem::path mixed = or_of_set(args.mixed, "cross.jsonl.zst");
  if (!args.mixed.empty() || std::filesystem::exists(mixed)) options.mixed = documents_of(mixed);
  const std::filesystem::path train_data = args.train_data.empty() ? set : std::filesystem::path(args.train_data);
  if (!args.train_data.empty() || std::filesystem::exists(train_data / "index.json"))
    options.train_data = train_data.string();
  if (!args.teacher.empty()) options.teacher = args.teacher;
  options.regret_texts = args.regret_texts;
  auto progress = std::make_shared<Progress>("routing", 10.0);
  options.progress = [progress](const std::string& what, double done, double total) {
    progress->update(done, total, what);
  };
  const Model model(folder.architecture, Parameters(folder), at::kFloat);
  std::vector<DocumentDecision> decisions;
  const Json report = routing_suite(model, tokenizer, options, &decisions);
  progress->finish();
  if (!args.decisions.empty()) {
    FileWriter out(args.decisions);
    for (const DocumentDecision& d : decisions) {
      const Document& document = options.documents[d.document];
      out.write(
          Json{{"label", document.domain},
               {"choice", d.choice < 0 ? Json() : report["domains"][static_cast<size_t>(d.choice)]},
               {"source", document.source},
               {"begins", document.text.substr(0, valid_utf8_prefix(std::string_view(document.text).substr(0, 400)))}}
              .dump() +
          "\n");
    }
    out.close();
  }
  return report;
}

void run_cross_suite(const std::filesystem::path& model_or_run, const std::string& data, bool json) {
  const std::string of_run = data.empty() ? data_of_run(model_or_run) : data;
  if (of_run.empty())
    throw Error(ErrorCode::kUsage,
                "--data is missing: " + model_or_run.string() + " is no run that would name its data",
                "--data data/full/built");
  const Suite suite = load_suite(of_run);
  const ModelFolder folder = open_model(model_or_run);
  const Tokenizer tokenizer = load_tokenizer(folder);
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
  std::cout << fmt::format("{:<24}{:>8.4f} bits/byte, pieces of held-out documents\n", "spliced",
                           figures["spliced_bpb"].get<double>());
  for (const char* task : kChoiceTasks) {
    if (!figures.contains("cross_accuracy")) break;  // documents that give no items
    std::cout << fmt::format("{:<24}{:>7.1f} % of {} right, {:.1f} % by what the context adds (chance 25 %)\n", task,
                             100 * figures["cross_accuracy"][task].get<double>(), figures["items"][task].get<int>(),
                             100 * figures["cross_accuracy_by_gain"][task].get<double>());
  }
  if (json) std::cout << figures.dump() << "\n";
}

}  // namespace

void add_eval_command(CLI::App& app) {
  struct Arguments {
    std::string model, data, suite;
    SuiteArguments routing;
    std::vector<std::string> domains, deny;
    int64_t max_bytes = 0;
    int threads = 0;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "Bits per byte by domain on labelled documents");
  command->add_option("MODEL_OR_RUN", args->model, "a model folder or a run")->required();
  command->add_option("--data", args->data,
                      "FILE.jsonl or .jsonl.zst of {\"text\", \"domain\"}; of --suite routing: the held-out documents; "
                      "of --suite cross: a data folder");
  command
      ->add_option("--suite", args->suite,
                   "routing: is level 1 right, and what do its decisions cost; cross: held-out and cross-domain bits "
                   "per byte, multiple "
                   "choice")
      ->check(CLI::IsMember({"routing", "cross"}));
  command->add_option("--domains", args->domains, "only these domains may be active")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--deny", args->deny, "domains that must not be active")->delimiter(',')->allow_extra_args(false);
  command->add_option("--mixed", args->routing.mixed,
                      "routing: documents that mix domains (cross.jsonl.zst of the data)");
  command->add_option("--train-data", args->routing.train_data,
                      "routing: the data folder that the linear baseline learns from");
  command->add_option("--teacher", args->routing.teacher, "routing: a teacher that distil saved (ROUTER/teacher)");
  command->add_option("--regret-texts", args->routing.regret_texts, "routing: texts of each kind; 0: all")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--decisions", args->routing.decisions,
                      "routing: write label and choice of each document to this JSONL file");
  command->add_option("--max-bytes", args->max_bytes, "of each domain, its sources alike; 0: everything")
      ->check(at_least(0));
  command->add_option("--threads", args->threads, "0: all CPUs")->check(CLI::Range(0, kMostThreads));
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer(
      "Example: ./tessera eval runs/demo --data data/small/built/heldout.jsonl.zst --max-bytes 500000\n"
      "         ./tessera eval runs/demo --suite routing --json");
  command->callback([args, command] {
    at::set_num_threads(args->threads > 0 ? args->threads : num_cpus());
    const auto refuse = [&](std::initializer_list<const char*> options) {
      for (const char* option : options) {
        if (command->count(option) > 0)
          throw Error(ErrorCode::kUsage, fmt::format("--suite {} takes no {}", args->suite, option),
                      "leave one of the two out");
      }
    };
    if (!args->suite.empty()) refuse({"--domains", "--deny", "--max-bytes"});
    if (args->suite == "cross") refuse({"--mixed", "--train-data", "--teacher", "--regret-texts", "--decisions"});
    if (args->suite == "cross") return run_cross_suite(args->model, args->data, args->json);
    const ModelFolder folder = open_model(args->model);
    if (args->suite == "routing") {
      args->routing.model = args->model;
      args->routing.data = args->data;
      const Json report = run_routing_suite(args->routing, folder);
      print_routing(report);
      if (args->json) std::cout << report.dump() << "\n";
      return;
    }
    if (args->data.empty())
      throw Error(ErrorCode::kUsage, "--data is missing: which documents?",
                  "--data data/small/built/heldout.jsonl.zst");
    const Tokenizer tokenizer = load_tokenizer(folder);
    const Model model(folder.architecture, Parameters(folder), at::kFloat);
    RoutingOptions routing;
    routing.allowed_domains =
        allowed_domains(folder.architecture.hierarchy, args->domains, args->deny, "--domains/--deny");
    ModelScorer scorer(model, routing);
    evaluate_file(scorer, tokenizer, folder.architecture.hierarchy, args->data, args->max_bytes,
                  routing.allowed_domains.empty(), args->json);
  });
}

}  // namespace tessera
