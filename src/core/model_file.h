// A model folder: config.json, model.safetensors, tokenizer.json. A run is accepted wherever a model is: its newest
// complete checkpoint holds one.
#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"
#include "core/safetensors.h"
#include "core/tokenizer.h"

namespace tessera {

// config.json: {"format": "tessera-1", "model": Architecture, "eos_tokens": [ids], ...}; the rest says where the model
// came from.
struct ModelConfig {
  Json json;
  Architecture architecture;
  std::vector<int32_t> eos_tokens;  // what ends an answer, of imported models; may be empty
};

struct ModelFolder {
  std::filesystem::path path;
  Json config;  // as it is in config.json
  Architecture architecture;
  std::vector<int32_t> eos_tokens;
  std::unique_ptr<SafetensorsFile> weights;
  std::filesystem::path tokenizer() const { return path / "tokenizer.json"; }
  std::filesystem::path chat_template() const { return path / "chat_template.jinja"; }  // not there: none
};

// The model folder that `path` (a model or a run) means. Throws Error{kFile} naming what is missing.
std::filesystem::path resolve_model(const std::filesystem::path& path);

// Throws Error{kData} that begins with the path and names the key, what was expected and what was found.
ModelConfig read_model_config(const std::filesystem::path& config_json);

// Opens and checks: config, then that exactly the tensors of tensor_specs() are there, with their shapes, and that the
// metadata's hash is config.json's. Throws Error{kData} naming the tensor.
ModelFolder open_model(const std::filesystem::path& path);

// The model's tokenizer.json. Throws Error{kData} when it has tokens that the embedding has no row for.
Tokenizer load_tokenizer(const ModelFolder& model);

// Throws Error{kData} naming the tensor if it (F64, F32, F16 or BF16) has a value that is not finite; reads all of it.
void check_finite(const SafetensorsFile& file, const TensorInfo& tensor);

// A run's checkpoints, oldest first: folders checkpoints/step-NNNNNNNN that were published whole.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run);

// Metadata key that holds config_hash() of config.json.
inline constexpr const char* kConfigHashKey = "tessera.config_hash";

}  // namespace tessera
