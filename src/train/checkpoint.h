// Checkpoints of a run (DESIGN section 5): a folder written beside, fsynced and renamed. checkpoints/step-NNNNNNNN/
//   model/                  config.json, model.safetensors, tokenizer.json: a model by itself
//   optimizer.safetensors   AdamW's moments
//   state.json              step, data position, hashes of the files above; written last
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "core/config.h"
#include "train/model.h"
#include "train/optimizer.h"

namespace tessera {

// Writes a model folder (config.json with `about` beside the architecture).
void save_model(const std::filesystem::path& folder, const Model& model, const Json& about,
                const std::string& tokenizer_json);

// Publishes checkpoints/step-NNNNNNNN and removes all but the newest `keep`. `state` gains "files": {name: hash}.
// A failure (disk full) throws Error{kFile} and leaves nothing half-written.
void save_checkpoint(const std::filesystem::path& run, int64_t step, const Model& model, const Optimizer& optimizer,
                     Json state, const Json& about, const std::string& tokenizer_json, int keep);

struct Checkpoint {
  std::filesystem::path path;
  Json state;
};
// The newest complete checkpoint: each file is there and has its hash. A broken one is skipped with a warning that
// names it.
std::optional<Checkpoint> newest_checkpoint(const std::filesystem::path& run);

}  // namespace tessera
