#include "core/model_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "core/config.h"
#include "core/tensor_names.h"

namespace tessera {
namespace fs = std::filesystem;

std::vector<fs::path> list_checkpoints(const fs::path& run) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name.find('.') == std::string::npos) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

fs::path resolve_model(const fs::path& path) {
  if (fs::exists(path / "config.json") && fs::exists(path / "model.safetensors")) return path;
  if (fs::exists(path / "model" / "model.safetensors")) return path / "model";
  const std::vector<fs::path> checkpoints = list_checkpoints(path);
  for (auto it = checkpoints.rbegin(); it != checkpoints.rend(); ++it) {
    if (fs::exists(*it / "model" / "model.safetensors")) return *it / "model";
  }
  if (!fs::exists(path))
    throw Error(ErrorCode::kFile, "there is no model or run at " + path.string(), "check the path");
  throw Error(
      ErrorCode::kFile,
      path.string() + " is neither a model folder (config.json, model.safetensors) nor a run with a checkpoint");
}

ModelFolder open_model(const fs::path& given) {
  ModelFolder model;
  model.path = resolve_model(given);
  model.config = read_json_file(model.path / "config.json");
  if (!model.config.is_object() || !model.config.contains("model")) {
    throw Error(ErrorCode::kData, (model.path / "config.json").string() + " has no key 'model'");
  }
  model.architecture = architecture_from_json(model.config["model"]);
  model.weights = std::make_unique<SafetensorsFile>(model.path / "model.safetensors");
  const auto hash = model.weights->metadata().find(kConfigHashKey);
  if (hash != model.weights->metadata().end() && hash->second != config_hash(model.config)) {
    throw Error(ErrorCode::kData,
                model.path.string() + ": config.json is not the one that model.safetensors was written with",
                "restore config.json from the same checkpoint");
  }
  size_t expected = 0;
  for (const TensorSpec& spec : tensor_specs(model.architecture)) {
    const TensorInfo& tensor = model.weights->at(spec.name);
    if (tensor.shape != spec.shape) {
      throw Error(ErrorCode::kData,
                  fmt::format("{}: tensor '{}': expected shape [{}], found [{}]", model.weights->path().string(),
                              spec.name, fmt::join(spec.shape, ", "), fmt::join(tensor.shape, ", ")));
    }
    ++expected;
  }
  if (model.weights->tensors().size() != expected) {
    throw Error(ErrorCode::kData, fmt::format("{}: expected {} tensors, found {}", model.weights->path().string(),
                                              expected, model.weights->tensors().size()));
  }
  return model;
}

}  // namespace tessera
