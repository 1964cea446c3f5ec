#include "core/model_file.h"

#include <algorithm>
#include <set>

#include "base/block_layout.h"
#include "base/error.h"
#include "base/log.h"
#include "core/config.h"
#include "core/tensor_names.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

bool is_quantised(const TensorInfo& tensor, const TensorSpec& spec) {
  if (tensor.dtype != "U8" || tensor.shape.size() != 1 || spec.shape.size() != 2) return false;
  return tensor.shape[0] == quantised_bytes(spec.shape[0], spec.shape[1], 8) ||
         tensor.shape[0] == quantised_bytes(spec.shape[0], spec.shape[1], 4);
}

}  // namespace

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
  const auto exists = [](const fs::path& p) {  // false for a path that can't be, too
    std::error_code ignored;
    return fs::exists(p, ignored);
  };
  if (exists(path / "config.json") && exists(path / "model.safetensors")) return path;
  if (exists(path / "model" / "model.safetensors")) return path / "model";
  const std::vector<fs::path> checkpoints = list_checkpoints(path);
  for (auto it = checkpoints.rbegin(); it != checkpoints.rend(); ++it) {
    if (exists(*it / "model" / "model.safetensors")) return *it / "model";
  }
  if (!exists(path)) throw Error(ErrorCode::kFile, "there is no model or run at " + path.string(), "check the path");
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
  try {
    model.architecture = architecture_from_json(model.config["model"]);
  } catch (const Error& e) {
    throw Error(ErrorCode::kData, (model.path / "config.json").string() + ": " + e.what(), e.hint());
  }
  model.weights = std::make_unique<SafetensorsFile>(model.path / "model.safetensors");
  const auto hash = model.weights->metadata().find(kConfigHashKey);
  if (hash != model.weights->metadata().end() && hash->second != config_hash(model.config)) {
    throw Error(ErrorCode::kData,
                model.path.string() + ": config.json is not the one that model.safetensors was written with",
                "restore config.json from the same checkpoint");
  }
  std::set<std::string> expected;
  for (const TensorSpec& spec : tensor_specs(model.architecture)) {
    const TensorInfo& tensor = model.weights->at(spec.name);
    if (tensor.shape != spec.shape && !is_quantised(tensor, spec)) {
      throw Error(ErrorCode::kData,
                  fmt::format("{}: tensor '{}': expected shape [{}], found [{}]", model.weights->path().string(),
                              spec.name, fmt::join(spec.shape, ", "), fmt::join(tensor.shape, ", ")));
    }
    expected.insert(spec.name);
  }
  for (const TensorInfo& tensor : model.weights->tensors()) {
    if (expected.contains(tensor.name)) continue;
    throw Error(ErrorCode::kData, fmt::format("{}: tensor '{}' is none of the {} that config.json's model has",
                                              model.weights->path().string(), tensor.name, expected.size()));
  }
  return model;
}

}  // namespace tessera
