// tessera compare: trains every variant of configs/compare (or compare-20m, compare-previous-token, route) on the same
// tokens in the same order, and keeps what each run gives as OUT/results/VARIANT-SEED.json. What is finished is
// skipped, what is broken off goes on.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "apps/commands.h"
#include "apps/config_arguments.h"
#include "apps/provenance.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/cost_model.h"
#include "core/tokenizer.h"
#include "data/loader.h"
#include "data/suite.h"
#include "train/scorer.h"
#include "train/trainer.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

struct Arguments {
  std::string folder = "configs/compare", out = "reports/compare", runs = "runs/compare";
  std::vector<std::string> only;
  std::vector<uint64_t> seeds;
  bool time = false, list = false, json = false;
  std::vector<std::string> overrides;
};

struct Planned {
  std::string group, variant;
  uint64_t seed = 1;
  bool choices = true;
};

// get() would make 18446744073709551615 of -1, 1 of 1.5, and a list of anything.
std::vector<uint64_t> seeds_of(const Json& group, const fs::path& plan) {
  const Json& seeds = group.at("seeds");
  const bool right = seeds.is_array() && std::all_of(seeds.begin(), seeds.end(),
                                                     [](const Json& seed) { return seed.is_number_unsigned(); });
  if (!right) {
    throw Error(ErrorCode::kConfig, plan.string() + ": a group's seeds are " + seeds.dump(),
                "they are a list of whole numbers from 0 on");
  }
  return seeds.get<std::vector<uint64_t>>();
}

// plan.json: {group: {"seeds": [n], "choices": false (no multiple choice, which takes minutes), "variants":
// {name: {...}}}}. Seed by seed, so that a first table is there early.
std::vector<Planned> read_plan(const Arguments& args) {
  const fs::path path = fs::path(args.folder) / "plan.json";
  const Json plan = read_json_file(path);
  std::vector<Planned> all;
  std::vector<std::string> known;
  try {
    for (const auto& [group, json] : plan.items()) {
      if (!json.is_object()) continue;
      for (const auto& [name, unused] : json.at("variants").items()) known.push_back(name);
      const std::vector<uint64_t> seeds = args.seeds.empty() ? seeds_of(json, path) : args.seeds;
      for (uint64_t seed : seeds) {
        for (const auto& [name, unused] : json.at("variants").items()) {
          // A variant may have more seeds in another group; --seeds replaces those of both.
          const bool twice = std::any_of(all.begin(), all.end(), [&, &name = name](const Planned& p) {
            return p.variant == name && p.seed == seed;
          });
          if (!twice) all.push_back({group, name, seed, json.value("choices", true)});
        }
      }
    }
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kConfig, path.string() + ": " + e.what(),
                "a group looks like {\"seeds\": [1], \"variants\": {\"flat-32\": {}}}");
  }
  for (const std::string& name : args.only) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string near = nearest(name, known);
    throw Error(ErrorCode::kUsage, "--only: there is no variant '" + name + "'",
                near.empty() ? fmt::format("there are {}", fmt::join(known, ", ")) : "did you mean '" + near + "'?");
  }
  if (all.empty())
    throw Error(ErrorCode::kConfig, path.string() + ": nothing is planned", "give a group \"seeds\" and \"variants\"");
  std::erase_if(all, [&](const Planned& p) {
    return !args.only.empty() && std::find(args.only.begin(), args.only.end(), p.variant) == args.only.end();
  });
  return all;
}

std::string run_name(const Planned& p) { return p.variant + "-" + std::to_string(p.seed); }

Config config_of(const Arguments& args, const Planned& p) {
  std::vector<std::string> overrides = args.overrides;
  overrides.push_back("name=" + run_name(p));
  overrides.push_back("train.seed=" + std::to_string(p.seed));
  return load_config(fs::path(args.folder) / (p.variant + ".json"), overrides);
}

// By what the result's config means to today's reader: a key that came later has its default there.
bool is_of_run(const Json& result, const Config& config) {
  try {
    return what_is_trained(config_from_json(result.at("config"))) == what_is_trained(config);
  } catch (const std::exception&) {  // no config, or one that is refused today
    return false;
  }
}

// The batches of the run again, from the loader alone (a pure function of data, options and seed): a hash over all of
// them, and where the loader then stands.
std::pair<std::string, Json> replay_batches(const Config& config, const ShardSet& shards) {
  Loader loader(shards, loader_options(config));
  std::string hash;
  for (int64_t step = 0; step < config.train.steps; ++step) {
    const Batch batch = loader.next(static_cast<int>(config.train.batch_tokens / config.model.trunk.context_length));
    std::string all = hash;
    for (const auto* field : {&batch.inputs_RT, &batch.targets_RT, &batch.starts_RT, &batch.domains_RT})
      all.append(reinterpret_cast<const char*>(field->data()), field->size() * sizeof(int32_t));
    hash = hash_hex(all);
  }
  return {hash, loader.state()};
}

// Held-out bits per byte while training: [{"tokens", "bpb": {domain: x}, "mean": x}].
Json learning_curve(const fs::path& run) {
  Json curve = Json::array();
  read_lines(run / "metrics.jsonl", [&](std::string_view text, int64_t) {
    const Json line = Json::parse(text, nullptr, false);
    if (line.is_object() && line.contains("eval"))
      curve.push_back({{"tokens", line["tokens"]}, {"bpb", line["eval"]["bpb"]}, {"mean", line["eval"]["bpb_mean"]}});
    return true;
  });
  return curve;
}

Json result_of(const Arguments& args, const Planned& p, const Config& config, const Suite& suite,
               const ShardSet& shards, const std::string& trained_by) {
  const fs::path run = fs::path(args.runs) / run_name(p);
  const Json state = read_json_file(list_checkpoints(run).back() / "state.json");
  const auto [batch_hash, loader_state] = replay_batches(config, shards);
  if (loader_state != state.at("loader")) {
    throw Error(ErrorCode::kData, run.string() + ": its loader ended elsewhere than the same batches, drawn again, do",
                "the run was not trained on what it says; remove it and train again");
  }
  const ModelFolder folder = open_model(run);
  const Tokenizer tokenizer = Tokenizer::from_file(folder.tokenizer());
  const Model model(folder.architecture, Parameters(folder, at::kFloat, device_named(config.train.device)), at::kFloat);
  at::set_num_threads(config.train.num_threads > 0 ? config.train.num_threads : num_cpus());
  ModelScorer scorer(model);
  Progress progress("evaluate " + run_name(p), 30);
  const SuiteResults results = run_suite(scorer, tokenizer, suite, folder.architecture.hierarchy,
                                         [&](double done, double total) { progress.update(done, total); });
  progress.finish();
  const ParameterCount parameters = count_parameters(folder.architecture);
  std::string command = fmt::format("./tessera compare {} --only {} --seeds {}", args.folder, p.variant, p.seed);
  if (args.out != Arguments().out) command += fmt::format(" --out {} --runs {}", args.out, args.runs);
  for (const std::string& setting : args.overrides) command += " " + setting;
  Json json = {{"variant", p.variant},
               {"group", p.group},
               {"seed", p.seed},
               {"command", command},
               {"commit", trained_by},
               {"evaluated_at", commit()},
               {"date", date_today()},
               {"machine", machine_name(config.train.device)},
               {"steps", state.at("step")},
               {"tokens", state.at("tokens")},
               {"total_parameters", parameters.total()},
               {"active_parameters", parameters.active()},
               {"data_hash", shards.hash()},
               {"batch_hash", batch_hash},
               {"config_hash", config_hash(what_is_trained(config))},
               {"config", to_json(config)}};
  json.update(to_json(results, suite));
  json["curve"] = learning_curve(run);
  json["details"] = details_json(results, suite);
  return json;
}

// The commit that a run was begun at: written before its first step, so that it is right after a resumption too.
std::string commit_of_run(const fs::path& run) {
  const fs::path file = run / "commit";
  if (!fs::exists(file)) {
    fs::create_directories(run);
    write_file_atomic(file, commit() + "\n");
  }
  std::string text = read_file(file);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// Results of before there was spliced text get theirs, when their run is still there.
bool add_spliced(Json& result, const fs::path& run, const Config& config, const Suite& suite) {
  if (result.value("spliced_hash", "") == suite.spliced_hash || !is_finished(run, config)) return false;
  const ModelFolder folder = open_model(run);
  const Model model(folder.architecture, Parameters(folder, at::kFloat, device_named(config.train.device)), at::kFloat);
  at::set_num_threads(config.train.num_threads > 0 ? config.train.num_threads : num_cpus());
  ModelScorer scorer(model);
  EvaluateOptions options;
  options.hierarchy = folder.architecture.hierarchy;
  auto [figures, details] =
      spliced_json(evaluate(scorer, Tokenizer::from_file(folder.tokenizer()), suite.spliced, options), suite);
  result.update(figures);
  result["details"]["spliced"] = std::move(details);
  return true;
}

struct DataSet {
  ShardSet shards;
  Suite suite, without_choices;

  explicit DataSet(const fs::path& path)
      : shards(path, /*verify_hashes=*/true), suite(load_suite(path)), without_choices(suite) {
    without_choices.items.clear();
    without_choices.hash = hash_hex(suite.hash + " without choices");
  }

  void warn_of_few_choices() const {
    for (size_t task = 0; task < kChoiceTasks.size(); ++task) {
      const auto count = std::count_if(suite.items.begin(), suite.items.end(),
                                       [&](const ChoiceItem& item) { return item.task == static_cast<int>(task); });
      if (count < 1000) log_warn("the {} task has {} items only", kChoiceTasks[task], count);
    }
  }
};

enum class Outcome { kDone, kSkipped, kInterrupted };

Outcome compare_one(const Arguments& args, const Planned& p, const Suite& suite, const ShardSet& shards) {
  const Config config = config_of(args, p);
  const fs::path file = fs::path(args.out) / "results" / (run_name(p) + ".json");
  if (fs::exists(file)) {
    Json old = read_json_file(file);
    if (is_of_run(old, config) && old.value("data_hash", "") == shards.hash() &&
        old.value("suite_hash", "") == suite.hash) {
      if (!add_spliced(old, fs::path(args.runs) / config.name, config, suite)) return Outcome::kSkipped;
      write_file_atomic(file, old.dump() + "\n");
      return Outcome::kDone;
    }
    throw Error(ErrorCode::kData, file.string() + " comes from another config, data set or evaluation",
                "remove it (and its run under " + args.runs + ") to make it anew");
  }
  const fs::path run = fs::path(args.runs) / config.name;
  const std::string trained_by = commit_of_run(run);
  if (!is_finished(run, config)) {
    TrainOptions options;
    options.runs = args.runs;
    options.resume = !list_checkpoints(run).empty();
    log_info("{} {}: {} steps", options.resume ? "going on with" : "training", config.name, config.train.steps);
    if (!train(config, options).finished) return Outcome::kInterrupted;
  }
  const Json result = result_of(args, p, config, suite, shards, trained_by);
  write_file_atomic(file, result.dump() + "\n");
  const bool has_choices = result.contains("cross_accuracy");
  const auto percent = [&](const char* key) { return 100 * result[key]["mean"].get<double>(); };
  log_info("{}: bits/byte {}, cross {:.4f}{}", file.string(), result["bpb"].dump(), result["cross_bpb"].get<double>(),
           has_choices ? fmt::format("; choices {:.1f} %, by gain {:.1f} %", percent("cross_accuracy"),
                                     percent("cross_accuracy_by_gain"))
                       : "");
  return Outcome::kDone;
}

// ---- --time: tokens/s, when nothing else runs ----------------------------------------------------------------------

constexpr int kRounds = 3, kTimedSteps = 8, kWarmSteps = 2;

// Training speed of each variant: short runs in turns, the median of all timed steps.
void time_variants(const Arguments& args, std::vector<Planned> plan) {
  std::erase_if(plan, [&](const Planned& p) { return p.seed != plan.front().seed; });
  if (args.only.empty()) std::erase_if(plan, [](const Planned& p) { return p.group != "core"; });
  if (plan.empty())
    throw Error(ErrorCode::kUsage, "--time: " + args.folder + " has no group \"core\"", "name variants with --only");
  const fs::path runs = fs::path(args.runs) / "timing";
  std::map<std::string, std::vector<double>> speeds;
  for (int round = 0; round < kRounds; ++round) {
    for (const Planned& p : plan) {
      Arguments timed = args;
      for (const char* setting : {"train.eval_every=0", "train.eval_bytes=1000", "train.checkpoint_every=0",
                                  "train.log_every=1", "train.optimizer.warmup_steps=0"})
        timed.overrides.push_back(setting);
      timed.overrides.push_back(fmt::format("train.steps={}", kWarmSteps + kTimedSteps));
      fs::remove_all(runs);
      TrainOptions options;
      options.runs = runs;
      const TrainResult result = train(config_of(timed, p), options);
      if (!result.finished) throw CLI::RuntimeError(130);
      read_lines(result.run / "metrics.jsonl", [&](std::string_view text, int64_t) {
        const Json line = Json::parse(text, nullptr, false);
        if (line.contains("tokens_per_s") && line["step"].get<int>() > kWarmSteps)
          speeds[p.variant].push_back(line["tokens_per_s"].get<double>());
        return true;
      });
    }
  }
  fs::remove_all(runs);
  const std::string device = config_of(args, plan.front()).train.device;
  Json json = {
      {"machine", machine_name(device)}, {"commit", commit()}, {"date", date_today()}, {"variants", Json::object()}};
  for (auto& [variant, values] : speeds) {
    std::sort(values.begin(), values.end());
    json["variants"][variant] = {{"tokens_per_s", values[values.size() / 2]}, {"steps", values.size()}};
  }
  write_json_file(fs::path(args.out) / "timing.json", json);
  if (args.json) std::cout << json.dump() << "\n";
}

void run_compare(const Arguments& args) {
  const std::vector<Planned> plan = read_plan(args);
  if (args.list) {
    for (const Planned& p : plan) {
      const bool done = fs::exists(fs::path(args.out) / "results" / (run_name(p) + ".json"));
      std::cout << fmt::format("{:<12} {:<34} {}\n", p.group, run_name(p), done ? "done" : "to do");
    }
    return;
  }
  fs::create_directories(fs::path(args.out) / "results");  // hours before it is needed
  if (args.time) return time_variants(args, plan);
  std::map<std::string, std::unique_ptr<const DataSet>> data_sets;
  int done = 0, skipped = 0;
  std::vector<std::string> failed;
  for (const Planned& p : plan) {
    try {
      const std::string path = config_of(args, p).data.path;
      std::unique_ptr<const DataSet>& data = data_sets[path];
      if (!data) {
        data = std::make_unique<const DataSet>(path);
        if (p.choices) data->warn_of_few_choices();
      }
      const Outcome outcome = compare_one(args, p, p.choices ? data->suite : data->without_choices, data->shards);
      if (outcome == Outcome::kInterrupted) throw CLI::RuntimeError(130);
      ++(outcome == Outcome::kDone ? done : skipped);
    } catch (const Error& e) {  // one run that diverges doesn't stop the night's work
      log_warn("{}: {}{}{}", run_name(p), e.what(), e.hint().empty() ? "" : " Hint: ", e.hint());
      failed.push_back(run_name(p));
    }
  }
  log_info("compare: {} made, {} were there, {} failed; results in {}/results", done, skipped, failed.size(), args.out);
  if (args.json) std::cout << Json{{"made", done}, {"skipped", skipped}, {"failed", failed}}.dump() << "\n";
  if (!failed.empty())
    throw Error(ErrorCode::kData,
                fmt::format("{} of {} runs gave no result: {}", failed.size(), plan.size(), fmt::join(failed, ", ")),
                "the warnings above say why; the same command goes on with what is missing");
}

}  // namespace

void add_compare_command(CLI::App& app) {
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("compare", "Train and evaluate the variants of configs/compare: FOLDER [--key=value ...]");
  command->add_option("FOLDER", args->folder, "plan.json and a config a variant")->capture_default_str();
  command->add_option("--only", args->only, "these variants: NAME,...")->delimiter(',')->allow_extra_args(false);
  command->add_option("--seeds", args->seeds, "instead of the plan's: 1,2,3")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(at_least(0));
  command->add_option("--out", args->out, "where results go")->capture_default_str();
  command->add_option("--runs", args->runs, "where runs are kept")->capture_default_str();
  command->add_flag("--time", args->time,
                    "measure tokens/s instead (a few steps of each in turns, on a quiet machine)");
  command->add_flag("--list", args->list, "say what is done and what is to do");
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->allow_extras();
  command->footer(
      "Example: ./tessera compare configs/compare --only mhc-75-100,flat-32 --seeds 1\n"
      "Ctrl-C finishes the step and saves; the same command goes on.\nThen the tables, figures and the summary: "
      ".venv/bin/python tools/compare_report.py");
  command->callback([args, command] {
    args->overrides = config_overrides(*command);
    run_compare(*args);
  });
}

}  // namespace tessera
