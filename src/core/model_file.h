// A model folder: config.json, model.safetensors, tokenizer.json. A run is accepted wherever a model is: its newest
// complete checkpoint holds one.
#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"
#include "core/safetensors.h"

namespace tessera {

struct ModelFolder {
  std::filesystem::path path;
  Json config;  // config.json: {"format", "model": Architecture, ...}
  Architecture architecture;
  std::unique_ptr<SafetensorsFile> weights;
  std::filesystem::path tokenizer() const { return path / "tokenizer.json"; }
};

// The model folder that `path` (a model or a run) means. Throws Error{kFile} naming what is missing.
std::filesystem::path resolve_model(const std::filesystem::path& path);

// Opens and checks: config, then that exactly the tensors of tensor_specs() are there, with their shapes, and that the
// metadata's hash is config.json's. Throws Error{kData} naming the tensor.
ModelFolder open_model(const std::filesystem::path& path);

// A run's checkpoints, oldest first: folders checkpoints/step-NNNNNNNN that were published whole.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run);

// Metadata key that holds config_hash() of config.json.
inline constexpr const char* kConfigHashKey = "tessera.config_hash";

}  // namespace tessera
