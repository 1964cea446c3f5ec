#include "core/model_file.h"

#include <algorithm>
#include <cstring>
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
    if (name.starts_with("step-") && name.find_first_not_of("0123456789", 5) == name.npos)
      found.push_back(entry.path());
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

ModelConfig read_model_config(const fs::path& path) {
  const auto fail = [&](const std::string& what, const std::string& hint = "") {
    throw Error(ErrorCode::kData, path.string() + ": " + what, hint);
  };
  ModelConfig config{read_json_file(path), {}, {}};
  const Json& json = config.json;
  if (!json.is_object()) fail("it is no JSON object");
  if (json.value("format", Json()) != "tessera-1")
    fail("key 'format': expected \"tessera-1\", found " + json.value("format", Json()).dump(),
         "is it a model's config?");
  if (!json.contains("model")) fail("it has no key 'model'");
  try {
    config.architecture = architecture_from_json(json["model"]);
  } catch (const Error& e) {
    fail(e.what(), e.hint());
  }
  const int vocab_size = config.architecture.trunk.vocab_size;
  if (vocab_size < 1) fail("key 'model.trunk.vocab_size': expected at least 1, found " + std::to_string(vocab_size));
  const Json eos_tokens = json.value("eos_tokens", Json::array());
  if (!eos_tokens.is_array()) fail("key 'eos_tokens': expected a list");
  for (const Json& id : eos_tokens) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size)
      fail("key 'eos_tokens': " + id.dump() + " is no token below " + std::to_string(vocab_size));
    config.eos_tokens.push_back(id.get<int32_t>());
  }
  return config;
}

ModelFolder open_model(const fs::path& given) {
  ModelFolder model;
  model.path = resolve_model(given);
  ModelConfig config = read_model_config(model.path / "config.json");
  model.config = std::move(config.json);
  model.architecture = std::move(config.architecture);
  model.eos_tokens = std::move(config.eos_tokens);
  model.weights = std::make_unique<SafetensorsFile>(model.path / "model.safetensors");
  const auto hash = model.weights->metadata().find(kConfigHashKey);
  if (hash != model.weights->metadata().end() && hash->second != config_hash(model.config)) {
    throw Error(ErrorCode::kData,
                model.path.string() + ": config.json is not the one that model.safetensors was written with",
                "restore config.json from the same checkpoint");
  }
  // Before lists of that length are made: a layer has tensors of its own, and so has each of its components.
  const Architecture& a = model.architecture;
  const int64_t least = a.trunk.num_layers + int64_t{num_component_layers(a)} * num_components(a.hierarchy);
  const auto found = static_cast<int64_t>(model.weights->tensors().size());
  if (least > found)
    throw Error(ErrorCode::kData, fmt::format("{} has {} tensors, config.json's {} layers need more than {}",
                                              model.weights->path().string(), found, a.trunk.num_layers, least));
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

Tokenizer load_tokenizer(const ModelFolder& model) {
  Tokenizer tokenizer = Tokenizer::from_file(model.tokenizer());
  if (tokenizer.vocab_size() > model.architecture.trunk.vocab_size)
    throw Error(ErrorCode::kData,
                fmt::format("{} has {} tokens, the model's embedding {} rows", model.tokenizer().string(),
                            tokenizer.vocab_size(), model.architecture.trunk.vocab_size),
                "the tokenizer is not the one that the model was trained with");
  return tokenizer;
}

void check_finite(const SafetensorsFile& file, const TensorInfo& tensor) {
  const std::span<const std::byte> bytes = file.bytes(tensor);
  // All bits of the exponent are set in what is infinite or no number.
  const auto any = [&]<class T>(T exponent) {
    for (size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
      T bits;
      std::memcpy(&bits, bytes.data() + i, sizeof bits);
      if ((bits & exponent) == exponent) return true;
    }
    return false;
  };
  const bool found = tensor.dtype == "F32"    ? any(uint32_t{0x7F800000})
                     : tensor.dtype == "F16"  ? any(uint16_t{0x7C00})
                     : tensor.dtype == "BF16" ? any(uint16_t{0x7F80})
                     : tensor.dtype == "F64"  ? any(uint64_t{0x7FF0000000000000})
                                              : false;
  if (found)
    throw Error(ErrorCode::kData,
                file.path().string() + ": tensor '" + tensor.name + "' has values that are not finite");
  file.file().check_intact();
}

}  // namespace tessera
