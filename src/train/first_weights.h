// What a run begins with: its configuration completed by the data and by the models that it starts from, and its
// weights: drawn from the seed, another model's (--init), or those of a model that grows by a domain (--add-domain).
#pragma once
#include "core/tokenizer.h"
#include "data/shards.h"
#include "train/add_domain.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace tessera {

// The vocabulary's size from the data, the architecture grown by a domain, a distilled level 1's sizes and calibration;
// checked. Throws Error{kConfig} naming the key, also when the model of --init has another tokenizer than the data or
// another architecture than the config.
Config resolve(Config config, const TrainOptions& options, const ShardSet& shards, const Tokenizer& tokenizer);

struct FirstWeights {
  Parameters parameters;  // f32; without a gradient where they are kept as they are
  OldWeights old;         // of a model that a domain is added to
  ModelExtras extras;     // tokenizer.json, and what --init's model has beside its weights
};
// `config` is resolve()'s.
FirstWeights first_weights(const Config& config, const TrainOptions& options, const Tokenizer& tokenizer,
                           at::Device device);

}  // namespace tessera
