#include "train/trainer.h"

#include <csignal>

#include "base/error.h"
#include "base/event_file.h"
#include "base/files.h"
#include "base/folder_lock.h"
#include "base/log.h"
#include "base/rng.h"
#include "core/tokenizer.h"
#include "data/document.h"
#include "data/evaluate.h"
#include "data/loader.h"
#include "data/sample.h"
#include "train/checkpoint.h"
#include "train/first_weights.h"
#include "train/losses.h"
#include "train/metrics.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/products.h"
#include "train/scorer.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

std::atomic<bool> interrupted{false};

// Ctrl-C finishes the step; a second one kills, as usual.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupted = false;
    previous_int_ = std::signal(SIGINT, on_signal);
    previous_term_ = std::signal(SIGTERM, on_signal);
  }
  ~InterruptGuard() {
    std::signal(SIGINT, previous_int_);
    std::signal(SIGTERM, previous_term_);
  }

 private:
  static void on_signal(int number) {
    interrupted = true;
    std::signal(number, SIG_DFL);
  }
  void (*previous_int_)(int);
  void (*previous_term_)(int);
};

std::vector<Document> heldout_sample(const fs::path& data, int64_t bytes_by_domain) {
  std::vector<Document> documents;
  const fs::path file = data / "heldout.jsonl.zst";
  if (!fs::exists(file)) return documents;
  read_documents(file, [&](Document&& document) { documents.push_back(std::move(document)); });
  return even_sample(std::move(documents), bytes_by_domain);
}

// The config's general domains and one for each of the data's labels, as large as its last.
Json domains_of(const ShardSet& shards, const Hierarchy& hierarchy) {
  Json domains = Json::array();
  for (const Domain& d : hierarchy.domains) {
    if (d.always) domains.push_back({{"name", d.name}, {"num_components", d.num_components}, {"always", true}});
  }
  for (const std::string& name : shards.domains()) {
    if (name != kMixedDomain)
      domains.push_back({{"name", name}, {"num_components", hierarchy.domains.back().num_components}});
  }
  return domains;
}

at::ScalarType compute_dtype(const Config& config) {
  return config.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

class Run {
 public:
  Run(const Config& config, const ShardSet& shards, Tokenizer tokenizer, FirstWeights first, fs::path folder,
      bool resume);
  TrainResult train();

 private:
  void resume_from(const Checkpoint& checkpoint);
  StepMetrics step();
  void accumulate(const PackedRows& rows, int64_t micro, double share, int64_t num_targets, StepMetrics& metrics);
  void update_selection_bias(const StepMetrics& metrics);
  void evaluate_now();
  void save();

  const Config config_;
  const fs::path folder_;
  std::optional<FolderLock> lock_;
  const ShardSet& shards_;
  const Tokenizer tokenizer_;
  Loader loader_;
  Model model_;
  OldWeights old_weights_;
  ModelExtras extras_;
  Optimizer optimizer_;
  std::vector<int> label_of_data_domain_;  // data set's domain -> routed domain of the model, -1: none
  std::vector<uint8_t> allowed_domains_;
  std::vector<Document> heldout_;
  int64_t steps_ = 0, tokens_ = 0;
  double seconds_ = 0, began_s_ = 0;
  std::unique_ptr<MetricsLog> log_;
  Progress progress_{"train", 10.0};
};

Run::Run(const Config& config, const ShardSet& shards, Tokenizer tokenizer, FirstWeights first, fs::path folder,
         bool resume)
    : config_(config),
      folder_(std::move(folder)),
      shards_(shards),
      tokenizer_(std::move(tokenizer)),
      loader_(shards_, loader_options(config_)),
      model_(config_.model, std::move(first.parameters), compute_dtype(config_)),
      old_weights_(std::move(first.old)),
      extras_(std::move(first.extras)),
      optimizer_(model_.parameters(), config_.train.optimizer),
      allowed_domains_(
          allowed_domains(config_.model.hierarchy, config_.router.domains, {}, "config key 'router.domains'")),
      heldout_(heldout_sample(config_.data.path, config_.train.eval_bytes)) {
  const std::vector<std::string> names = routed_names(config_.model.hierarchy);
  for (const std::string& name : shards_.domains()) {
    label_of_data_domain_.push_back(routed_index(config_.model.hierarchy, name));
    if (label_of_data_domain_.back() < 0 && name != kMixedDomain && names.size() > 1) {
      throw Error(ErrorCode::kConfig,
                  "the data has documents of the domain \"" + name + "\", which is none of model.hierarchy.domains",
                  fmt::format("the config names {}; for the data's: --data.mix='{{}}' --model.hierarchy.domains='{}'",
                              fmt::join(names, ", "), domains_of(shards_, config_.model.hierarchy).dump()));
    }
  }
  if (heldout_.empty()) log_warn("{} has no held-out documents: nothing will be evaluated", config_.data.path);
  if (resume) {
    if (const std::optional<Checkpoint> checkpoint = newest_checkpoint(folder_)) {
      resume_from(*checkpoint);
    } else if (list_checkpoints(folder_).empty()) {
      log_warn("there is no checkpoint under {}: starting from the beginning", folder_.string());
    } else {  // training on would write over them
      throw Error(ErrorCode::kData, "--resume: none of the checkpoints of " + folder_.string() + " can be gone on with",
                  "the warnings above say why; a new run may start from the weights of one: --init CHECKPOINT/model");
    }
  }
  fs::create_directories(folder_ / "checkpoints");
  lock_.emplace(folder_);
  remove_unfinished_checkpoints(folder_);
  write_json_file(folder_ / "config.json", to_json(config_));
  log_ = std::make_unique<MetricsLog>(folder_, steps_);
}

// What a checkpoint was written with: a version that had other keys may have written it.
Config config_of(const Checkpoint& checkpoint) {
  try {
    return config_from_json(checkpoint.state.at("config"));
  } catch (const Error& e) {
    throw Error(e.code(), checkpoint.path.string() + ": " + e.what(), e.hint());
  }
}

void Run::resume_from(const Checkpoint& checkpoint) {
  const Json& state = checkpoint.state;
  Json mine = what_is_trained(config_), theirs = what_is_trained(config_of(checkpoint));
  for (Json* json : {&mine, &theirs}) {
    (*json)["train"].erase("steps");  // how long may differ when a run goes on
    (*json)["data"].erase("path");    // and where the data lie: what they are is checked below
  }
  if (mine != theirs) {
    throw Error(ErrorCode::kConfig,
                "--resume: the config is not the one of " + checkpoint.path.string() + ": " + differences(theirs, mine),
                "give the same values, or start a new run from its weights with --init");
  }
  if (state.at("data_hash") != shards_.hash()) {
    throw Error(ErrorCode::kData, "--resume: the data at " + config_.data.path + " is not what " +
                                      checkpoint.path.string() + " was trained on");
  }
  const ModelFolder model = open_model(checkpoint.path / "model");
  model_.parameters().load(model);
  old_weights_.take_from(model_.parameters());
  extras_ = extras_of(model);
  steps_ = state.at("step").get<int64_t>();
  tokens_ = state.at("tokens").get<int64_t>();
  seconds_ = state.at("seconds").get<double>();
  optimizer_.load_state(SafetensorsFile(checkpoint.path / "optimizer.safetensors"), steps_);
  loader_.set_state(state.at("loader"));
  log_info("resumed {} at step {}", checkpoint.path.string(), steps_);
}

void Run::accumulate(const PackedRows& rows, int64_t micro, double share, int64_t num_targets, StepMetrics& metrics) {
  const LossConfig& weights = config_.train.loss;
  RoutingOptions options;
  options.domain_dropout = weights.domain_dropout;
  options.allowed_domains = allowed_domains_;
  // A new domain makes up most of the text that it is learnt from, but not of what level 1 will see.
  const std::vector<uint8_t> added = added_domains(config_.model.hierarchy);
  options.balances_labels = std::count(added.begin(), added.end(), 1) > 0;
  options.dropout_seed =
      mix64(config_.train.seed ^ mix64(static_cast<uint64_t>(steps_) * 4096 + static_cast<uint64_t>(micro)));
  const Forward forward = model_.forward(rows, options);
  const at::Tensor hidden_SD = forward.hidden_RTD.reshape({-1, forward.hidden_RTD.size(-1)});
  const at::Tensor nats = linear_cross_entropy_sum(hidden_SD, model_.head(), rows.targets_RT.reshape({-1}));
  const at::Tensor loss = add_router_losses(nats / static_cast<double>(num_targets), forward, weights, share);
  metrics.add(rows, forward, nats.item<double>());
  metrics.is_finite = metrics.is_finite && std::isfinite(loss.item<double>());
  if (loss.requires_grad() && metrics.is_finite) torch::autograd::backward({loss}, {});
}

StepMetrics Run::step() {
  const int64_t length = config_.model.trunk.context_length;
  const int64_t num_rows = config_.train.batch_tokens / length, micro_rows = config_.train.micro_batch_tokens / length;
  const Batch batch = loader_.next(static_cast<int>(num_rows));
  StepMetrics metrics(config_.model);
  const int64_t num_targets = num_rows * length;
  for (int32_t token : batch.targets_RT)
    metrics.bytes += token == shards_.bos() ? 0 : static_cast<int64_t>(tokenizer_.token_bytes(token).size());
  for (int64_t begin = 0; begin < num_rows; begin += micro_rows) {
    auto slice = [&](const std::vector<int32_t>& all) {
      return std::vector<int32_t>(all.begin() + begin * length, all.begin() + (begin + micro_rows) * length);
    };
    std::vector<int32_t> labels = slice(batch.domains_RT);
    for (int32_t& label : labels) label = label < 0 ? -1 : label_of_data_domain_[static_cast<size_t>(label)];
    const PackedRows rows =
        pack_rows(micro_rows, length, slice(batch.inputs_RT), slice(batch.starts_RT), slice(batch.targets_RT),
                  std::move(labels), model_.chunk_tokens(), model_.device());
    accumulate(rows, begin / micro_rows, static_cast<double>(micro_rows) / static_cast<double>(num_rows), num_targets,
               metrics);
  }
  metrics.gradient_norm = optimizer_.clip_gradients();
  if (!metrics.is_finite || !std::isfinite(metrics.gradient_norm)) {
    // All of it is thrown away: the weights, the optimizer and the checkpoint are as they were before this batch.
    throw Error(
        ErrorCode::kDiverged,
        fmt::format("step {}: the loss ({}, and the routers') or the gradient's norm ({}) is not finite; stopped "
                    "before the update. The batch: {} documents, loader state {}",
                    steps_ + 1, metrics.nats / static_cast<double>(num_targets), metrics.gradient_norm,
                    batch.num_documents, loader_.state().dump()),
        "a lower --train.optimizer.lr, in a new run (from the last checkpoint, if there is one: --init " +
            folder_.string() + " --name=...), or look at the batch's documents");
  }
  metrics.learning_rate = learning_rate(config_.train.optimizer, steps_, config_.train.steps);
  optimizer_.step(metrics.learning_rate);
  update_selection_bias(metrics);
  old_weights_.restore(model_.parameters());
  ++steps_;
  tokens_ += num_targets;
  return metrics;
}

// Moves each component's selection bias against its load relative to an even spread over what is eligible (bias: Wang
// et al. 2024, arXiv 2408.15664, whose sign is replaced by the excess itself, so that it rests when the load is even).
// Even is by token: a domain's own components owe their share of that domain's text only.
void Run::update_selection_bias(const StepMetrics& metrics) {
  const Architecture& a = config_.model;
  const std::vector<std::vector<int64_t>>& counts_LN = metrics.component_picks();
  const std::vector<double>& even_N = metrics.even_picks();
  const at::NoGradGuard no_grad;
  for (size_t l = 0; l < counts_LN.size(); ++l) {
    const at::Tensor& bias =
        model_.parameters()["layers." + std::to_string(static_cast<int>(l) + a.trunk.num_dense_layers) +
                            ".selection_bias"];
    std::vector<float> change;
    for (size_t c = 0; c < even_N.size(); ++c) {
      const double excess = even_N[c] > 0 ? static_cast<double>(counts_LN[l][c]) / even_N[c] - 1 : 0.0;
      change.push_back(static_cast<float>(-config_.train.loss.balance_rate * std::clamp(excess, -1.0, 1.0)));
    }
    bias.add_(at::tensor(change, at::kFloat).to(bias.device(), bias.scalar_type()));
  }
}

void Run::evaluate_now() {
  if (heldout_.empty()) return;
  RoutingOptions routing;
  routing.allowed_domains = allowed_domains_;
  ModelScorer scorer(model_, routing);
  EvaluateOptions options;
  options.hierarchy = config_.model.hierarchy;
  options.judges_level1 = allowed_domains_.empty();
  const Evaluation evaluation = tessera::evaluate(scorer, tokenizer_, heldout_, options);
  log_->evaluation(steps_, tokens_, to_json(evaluation));
  std::string by_domain;
  for (size_t d = 0; d < evaluation.domains.size(); ++d)
    by_domain += fmt::format("  {} {:.3f}", evaluation.domains[d].name, evaluation.bpb(static_cast<int>(d)));
  log_info("held-out bits per byte at step {}: mean {:.3f}{}", steps_, evaluation.bpb_mean(), by_domain);
}

void Run::save() {
  const Json state = {{"step", steps_},
                      {"tokens", tokens_},
                      {"seconds", seconds_ + now_s() - began_s_},
                      {"loader", loader_.state()},
                      {"data_hash", shards_.hash()},
                      {"config", to_json(config_)}};
  ModelExtras extras = extras_;
  extras.about.update({{"run", config_.name}, {"step", steps_}, {"tokens", tokens_}, {"data_hash", shards_.hash()}});
  save_checkpoint(folder_, steps_, model_, optimizer_, state, extras, config_.train.keep_checkpoints);
}

TrainResult Run::train() {
  const InterruptGuard guard;
  const TrainConfig& t = config_.train;
  if (steps_ >= t.steps) {
    log_info("nothing to do: the run is at step {}, train.steps is {}", steps_, t.steps);
    return {folder_, steps_, tokens_, seconds_, true};
  }
  if (t.precision == "bf16" && model_.device().is_cpu())  // what the digits depend on
    log_info("products in {}", multiplies_bf16(at::kBFloat16) ? "bf16, on AMX tiles" : "f32: this CPU has no AMX");
  began_s_ = now_s();
  progress_.begin_at(static_cast<double>(steps_));
  double previous_s = now_s();
  int64_t saved_at = -1;
  while (steps_ < t.steps && !interrupted) {
    StepMetrics metrics = step();
    const double now = now_s();
    metrics.tokens_per_s = static_cast<double>(t.batch_tokens) / (now - previous_s);
    if (steps_ % t.log_every == 0 || steps_ == t.steps) {
      log_->step(metrics, steps_, tokens_, t.batch_tokens);
      progress_.update(static_cast<double>(steps_), static_cast<double>(t.steps), metrics.line(t.batch_tokens));
    }
    if ((t.eval_every > 0 && steps_ % t.eval_every == 0) || steps_ == t.steps) evaluate_now();
    if (t.checkpoint_every > 0 && steps_ % t.checkpoint_every == 0) {
      save();
      saved_at = steps_;
    }
    previous_s = now_s();
  }
  if (saved_at != steps_) save();
  TrainResult result{folder_, steps_, tokens_, seconds_ + now_s() - began_s_, steps_ >= t.steps};
  if (result.finished) {
    progress_.finish(fmt::format("{} tokens, {:.0f} tokens/s", human_count(static_cast<double>(tokens_)),
                                 static_cast<double>(tokens_) / result.seconds));
  } else {
    log_info("stopped after step {}; saved. Go on with the same command and --resume", steps_);
  }
  return result;
}

}  // namespace

Json what_is_trained(const Config& config) {
  Json json = to_json(config);
  for (const char* key :
       {"eval_every", "eval_bytes", "checkpoint_every", "keep_checkpoints", "log_every", "num_threads", "device"})
    json["train"].erase(key);
  return json;
}

TrainResult train(Config config, const TrainOptions& options) {
  const fs::path folder = options.runs / config.name;
  if (!options.resume && !list_checkpoints(folder).empty()) {
    throw Error(ErrorCode::kUsage, "there is a run at " + folder.string() + " already",
                "go on with --resume, choose another --name=..., or remove the folder");
  }
  const ShardSet shards(config.data.path);
  Tokenizer tokenizer = shards.tokenizer();
  config = resolve(std::move(config), options, shards, tokenizer);
  at::set_num_threads(config.train.num_threads);
  if (config.train.device == "cuda") {
    // cuBLAS repeats its sums with a fixed workspace only.
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    // It would also write every new tensor, to show reads of unset memory: a third of all launches.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
  FirstWeights first = first_weights(config, options, tokenizer, device_named(config.train.device));
  return Run(config, shards, std::move(tokenizer), std::move(first), folder, options.resume).train();
}

bool is_finished(const fs::path& run, const Config& config) {
  const std::vector<fs::path> checkpoints = list_checkpoints(run);
  if (checkpoints.empty() || !fs::exists(checkpoints.back() / "state.json")) return false;
  const Json state = read_json_file(checkpoints.back() / "state.json");
  if (state.value("step", int64_t{0}) != config.train.steps || !state.contains("config")) return false;
  Config mine = config, theirs;
  try {
    theirs = config_from_json(state["config"]);
  } catch (const Error&) {
    return false;  // of a version that had other keys
  }
  mine.model.trunk.vocab_size = theirs.model.trunk.vocab_size;  // resolved from the data when the run started
  if (!mine.router.init.empty()) mine.model.domain_router = theirs.model.domain_router;
  return what_is_trained(mine) == what_is_trained(theirs);
}

}  // namespace tessera
