// One training run: loader -> forward -> backward -> update, with evaluation, metrics and checkpoints. Everything of a
// run is in its folder: config.json, metrics.jsonl, events.*, checkpoints/.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "core/config.h"

namespace tessera {

struct TrainOptions {
  std::filesystem::path runs = "runs";        // the run's folder is runs/NAME
  bool resume = false;                        // go on from the newest complete checkpoint
  std::optional<std::filesystem::path> init;  // start from this model's weights
  std::string add_domain;                     // with `init`: grow it by this domain (train/add_domain.h)
};

struct TrainResult {
  std::filesystem::path run;
  int64_t steps = 0, tokens = 0;  // in all, over every resumption
  double seconds = 0;             // of training, over every resumption
  bool finished = false;          // false: stopped by Ctrl-C, after a checkpoint
};

// Throws Error for the user's faults (before anything is written where it can be known) and Error{kDiverged} for a
// non-finite loss or gradient, before the update, naming the step and the batch.
TrainResult train(Config config, const TrainOptions& options);

// The configuration without what changes a result by rounding at most: how often things are printed, evaluated and
// saved, on what and on how many threads.
Json what_is_trained(const Config& config);

// Whether this folder holds a finished run of what this configuration trains.
bool is_finished(const std::filesystem::path& run, const Config& config);

}  // namespace tessera
