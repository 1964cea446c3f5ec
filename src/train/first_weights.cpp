#include "train/first_weights.h"

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "base/threads.h"
#include "train/router_folder.h"

namespace tessera {
namespace {

void take_vocabulary(Trunk& trunk, const ShardSet& shards) {
  if (trunk.vocab_size == 0) trunk.vocab_size = shards.vocab_size();
  if (trunk.vocab_size < shards.vocab_size()) {
    throw Error(ErrorCode::kConfig,
                fmt::format("config key 'model.trunk.vocab_size': {} is less than the {} of the data's tokenizer",
                            trunk.vocab_size, shards.vocab_size()),
                "0 takes it from the data");
  }
}

// Token ids mean nothing to a model that learnt others.
void check_tokenizer(const ModelFolder& from, const Config& config, const Tokenizer& tokenizer) {
  if (read_file(from.tokenizer()) == tokenizer.json()) return;
  throw Error(
      ErrorCode::kConfig,
      fmt::format("--init {}: its tokenizer is not the one of the data at {}", from.path.string(), config.data.path),
      fmt::format("build the data with it: ./tessera data build INPUT --out FOLDER --tokenizer {}",
                  from.tokenizer().string()));
}

// Beside the tensors' shapes, what no shape tells: positions, norms, heads, who owns and shares what. Texts may be
// longer or shorter, and when a second domain becomes active is the user's to choose.
void check_architecture(const ModelFolder& from, const Config& config) {
  Json theirs = to_json(from.architecture), mine = to_json(config.model);
  for (Json* json : {&theirs, &mine}) {
    (*json)["trunk"].erase("context_length");
    for (const char* key : {"margin", "hysteresis"}) (*json)["domain_router"].erase(key);
    if (config.router.init.empty()) continue;  // a distilled level 1 may be the same one, calibrated anew
    for (const char* key : {"temperature", "floor"}) (*json)["domain_router"].erase(key);
  }
  if (theirs == mine) return;
  throw Error(ErrorCode::kConfig,
              fmt::format("--init {}: its architecture is not that of the config: {}", from.path.string(),
                          differences(theirs, mine)),
              "'model' in its config.json is what it has");
}

}  // namespace

Config resolve(Config config, const TrainOptions& options, const ShardSet& shards, const Tokenizer& tokenizer) {
  if (!options.add_domain.empty()) {
    if (!options.init)
      throw Error(ErrorCode::kUsage, "--add-domain needs --init MODEL: the model that it is added to",
                  "--init runs/NAME");
    config.model = with_domain(open_model(*options.init).architecture, options.add_domain);
    const std::vector<std::string>& labels = shards.domains();
    if (std::find(labels.begin(), labels.end(), options.add_domain) == labels.end()) {
      throw Error(ErrorCode::kConfig,
                  "--add-domain " + options.add_domain + ": the data at " + config.data.path + " has no such label",
                  fmt::format("its labels are {}", fmt::join(labels, ", ")));
    }
  }
  take_vocabulary(config.model.trunk, shards);
  if (config.train.num_threads == 0) config.train.num_threads = num_cpus();
  if (!config.router.init.empty() && options.add_domain.empty())
    config.model.domain_router = router_of_folder(config.router.init, config.model, tokenizer.json());
  check(config);
  if (options.init) {
    const ModelFolder from = open_model(*options.init);
    check_tokenizer(from, config, tokenizer);
    if (options.add_domain.empty()) check_architecture(from, config);
  }
  return config;
}

FirstWeights first_weights(const Config& config, const TrainOptions& options, const Tokenizer& tokenizer,
                           at::Device device) {
  const bool grows = !options.add_domain.empty();
  std::optional<ModelFolder> from;
  if (options.init) from = open_model(*options.init);
  FirstWeights first = {from && !grows ? Parameters(*from, at::kFloat, device)
                                       : Parameters(config.model, config.train.seed, at::kFloat, device),
                        {},
                        {}};
  if (from) first.extras = extras_of(*from);
  first.extras.files["tokenizer.json"] = tokenizer.json();
  if (grows) {
    first.old = OldWeights(*from, first.parameters);
  } else if (!config.router.init.empty()) {
    load_router(config.router.init, first.parameters);
  }
  return first;
}

}  // namespace tessera
