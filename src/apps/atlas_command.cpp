// tessera inspect RUN --atlas: what each component is for. It runs the model, so it belongs to tessera-train; `inspect`
// without --atlas reads files only and belongs to tessera.
#include <filesystem>
#include <iostream>

#include "apps/commands.h"
#include "apps/provenance.h"
#include "apps/report_page.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/config.h"
#include "core/tokenizer.h"
#include "data/atlas.h"
#include "data/sample.h"
#include "train/scorer.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kBytesADocument = 4000;

struct Arguments {
  std::string model, data, out;
  int64_t bytes = 16'000;
  bool atlas = false, json = false;
};

fs::path heldout_of_run(const fs::path& run) {
  if (fs::exists(run / "config.json")) {
    const Json config = read_json_file(run / "config.json");
    if (config.contains("data")) return fs::path(config_from_json(config).data.path) / "heldout.jsonl.zst";
  }
  throw Error(ErrorCode::kUsage, "--data is missing: " + run.string() + " is no run that would name its data",
              "--data data/full/built/heldout.jsonl.zst");
}

std::string shown_nats(const Json& nats) { return nats.is_number() ? fmt::format("{:+.3f}", nats.get<double>()) : "-"; }

void print(const Json& atlas) {
  std::cout << fmt::format("{:<8}{:<18}{:>9}{:>12}{:>13}{:>15}  {}\n", "layer", "component", "picked", "class bits",
                           "domain bits", "removal nats", "picked for: classes, domain (times its mean share)");
  for (const Json& c : atlas["components"]) {
    std::vector<std::string> uses;
    for (const char* of : {"classes", "domains"}) {
      for (const Json& use : c["picked_for"][of])
        uses.push_back(fmt::format("{} ({:.1f}x)", use[0].get<std::string>(), use[1].get<double>()));
    }
    const double share = c["share"].get<double>();
    const std::string use =
        uses.empty() ? (share > 0 ? "all alike" : "never picked") : fmt::format("{}", fmt::join(uses, ", "));
    std::cout << fmt::format("{:<8}{:<18}{:>7.2f} %{:>12.4f}{:>13.4f}{:>15}  {}{}\n", c["layer"].get<int>(),
                             c["name"].get<std::string>(), 100 * share, c["class_bits"].get<double>(),
                             c["domain_bits"].get<double>(), shown_nats(c.value("removal_nats", Json())), use,
                             c["dead"].get<bool>() ? "; dead in its own domain's text" : "");
  }
  std::cout << fmt::format("dead components (under 0.1 % of their own domain's tokens): {}", atlas["dead"].size());
  for (const Json& name : atlas["dead"]) std::cout << "; " << name.get<std::string>();
  std::cout << "\n";
}

void run_atlas(const Arguments& args) {
  const ModelFolder folder = open_model(args.model);
  const Tokenizer tokenizer = Tokenizer::from_file(folder.tokenizer());
  const fs::path out = args.out.empty() ? fs::path(args.model) / "atlas.html" : fs::path(args.out);
  check_writable(out);  // minutes before it is needed
  std::vector<Document> documents;
  read_documents(args.data.empty() ? heldout_of_run(args.model) : fs::path(args.data),
                 [&](Document&& d) { documents.push_back(std::move(d)); });
  const std::vector<Document> sample = sample_by_source(documents, args.bytes, kBytesADocument);
  at::set_num_threads(num_cpus());
  const Model model(folder.architecture, Parameters(folder), at::kFloat);
  ModelScorer scorer(model);
  Progress progress("atlas");
  AtlasOptions options;
  options.progress = [&](double done, double total) { progress.update(done, total); };
  Json atlas = build_atlas(scorer, tokenizer, sample, folder.architecture.hierarchy, options);
  progress.finish();
  atlas["title"] = "Atlas of components";
  atlas["model"] = args.model;
  atlas["date"] = date_today();
  atlas["commit"] = commit();
  atlas["machine"] = machine_name();
  write_atlas_page(out, atlas);
  print(atlas);
  std::cout << "page: " << out.string() << "\n";
  if (args.json) {
    atlas["page"] = out.string();
    std::cout << atlas.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  }
}

}  // namespace

void add_atlas_command(CLI::App& app) {
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("inspect", "With --atlas: what each component is picked for, as a page");
  command->add_option("MODEL_OR_RUN", args->model, "a model folder or a run")->required();
  command->add_flag("--atlas", args->atlas, "what each component is for: token classes, domains, contexts, removal")
      ->required();
  command->add_option("--data", args->data, "labelled documents (default: the held-out ones of the run's data)");
  command->add_option("--bytes", args->bytes, "of each source")->capture_default_str()->check(at_least(1));
  command->add_option("--out", args->out, "the page (default: MODEL_OR_RUN/atlas.html)");
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer("Example: ./tessera inspect runs/demo --atlas");
  command->callback([args] { run_atlas(*args); });
}

}  // namespace tessera
