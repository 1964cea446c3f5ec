// Checkpoints of a run (DESIGN section 5): a folder written beside, fsynced and renamed. checkpoints/step-NNNNNNNN/
//   model/                  config.json, model.safetensors, tokenizer.json: a model by itself
//   optimizer.safetensors   the optimizer's moments
//   state.json              step, data position, hashes of the files above and of itself; written last
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "core/config.h"
#include "core/model_file.h"
#include "train/model.h"
#include "train/optimizer.h"

namespace tessera {

// What a model folder has beside architecture and weights.
struct ModelExtras {
  Json about = Json::object();               // keys of config.json
  std::map<std::string, std::string> files;  // text by name: tokenizer.json, chat_template.jinja
};
// What a model that is trained on keeps of the one that it was.
ModelExtras extras_of(const ModelFolder& model);

// Writes a model folder.
void save_model(const std::filesystem::path& folder, const Model& model, const ModelExtras& extras);

// Publishes checkpoints/step-NNNNNNNN and removes all but the newest `keep`. Any beyond it, which a run fell back past,
// are no longer its checkpoints: they get ".broken" behind their names. `state` gains "files": {name: hash} and "hash".
// A failure (disk full) throws Error{kFile} and leaves nothing half-written.
void save_checkpoint(const std::filesystem::path& run, int64_t step, const Model& model, const Optimizer& optimizer,
                     Json state, const ModelExtras& extras, int keep);

// Removes what a killed process left half-written.
void remove_unfinished_checkpoints(const std::filesystem::path& run);

struct Checkpoint {
  std::filesystem::path path;
  Json state;
};
// The newest complete checkpoint: each file is there and has its hash, state.json too. A broken one is skipped with a
// warning that names it.
std::optional<Checkpoint> newest_checkpoint(const std::filesystem::path& run);

}  // namespace tessera
