// A model folder of random weights, for the tests of this folder.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <ranges>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/float_bits.h"
#include "base/rng.h"
#include "core/config.h"
#include "core/model_file.h"
#include "core/tensor_names.h"
#include "kernels/matvec.h"

namespace tessera::engine {

inline Architecture tiny_architecture() {
  Architecture a;
  a.trunk.vocab_size = 60;
  a.trunk.width = 32;
  a.trunk.num_layers = 3;
  a.trunk.num_heads = 4;
  a.trunk.num_kv_heads = 2;
  a.trunk.context_length = 300;
  a.trunk.previous_token = true;
  a.trunk.num_dense_layers = 1;
  a.trunk.dense_width = 40;
  a.hierarchy.domains = {
      {"general", 4, true, {}}, {"code", 2, false, {}}, {"mathematics", 2, false, {}}, {"prose", 3, false, {}}};
  a.hierarchy.num_banks = 3;
  a.hierarchy.base_width = 20;
  a.hierarchy.unique_width = 24;
  a.domain_router.kind = "encoder";
  a.domain_router.width = a.component_router.width = 16;
  a.domain_router.num_heads = a.component_router.num_heads = 2;
  a.domain_router.margin = 0.1;
  return a;
}

// The weights are large enough that routes differ from token to token; `change` may spoil a tensor.
inline std::filesystem::path write_random_model(
    const Architecture& a, const std::string& name,
    const std::function<void(const TensorSpec&, std::vector<float>&)>& change = {}) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() /
      ("tessera-engine-" + std::to_string(::getpid()) + "-" + name);  // tests run side by side
  std::filesystem::create_directories(folder);
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  for (const TensorSpec& spec : tensor_specs(a)) {
    std::vector<float> v(static_cast<size_t>(num_elements(spec.shape)), 1.0f);
    Rng rng(11, values.size());
    if (spec.shape.size() == 2 || spec.buffer) {
      const double scale = spec.buffer ? 0.1 : 2.0 / std::sqrt(static_cast<double>(spec.shape.back()));
      for (float& x : v) x = static_cast<float>(scale * rng.normal());
    }
    if (change) change(spec, v);
    values.push_back(std::move(v));
    tensors.push_back({spec.name, "F32", spec.shape, std::as_bytes(std::span(values.back())), spec.page_start});
  }
  write_safetensors(folder / "model.safetensors", tensors, {});
  write_json_file(folder / "config.json", {{"format", "tessera-1"}, {"model", to_json(a)}});
  return folder;
}

// The folder's model with its matrices of these parts in 16 (bf16), 8 or 4 bits.
inline std::filesystem::path quantised(const std::filesystem::path& folder, const std::map<Part, int>& bits) {
  const ModelFolder model = open_model(folder);
  std::vector<std::vector<std::byte>> made;
  std::vector<TensorToWrite> tensors;
  for (const TensorSpec& spec : tensor_specs(model.architecture)) {
    const TensorInfo& tensor = model.weights->at(spec.name);
    TensorToWrite entry = {spec.name, tensor.dtype, tensor.shape, model.weights->bytes(tensor), spec.page_start};
    if (const auto found = bits.find(spec.part); found != bits.end() && spec.shape.size() == 2) {
      const float* values = reinterpret_cast<const float*>(entry.bytes.data());
      if (found->second == 16) {
        made.emplace_back(entry.bytes.size() / 2);
        std::transform(values, values + num_elements(spec.shape), reinterpret_cast<uint16_t*>(made.back().data()),
                       bf16_from_float);
        entry.dtype = "BF16", entry.bytes = made.back();
      } else {
        made.emplace_back(static_cast<size_t>(quantised_bytes(spec.shape[0], spec.shape[1], found->second)));
        quantise_matrix(values, spec.shape[0], spec.shape[1], found->second, made.back().data());
        entry.dtype = "U8", entry.shape = {static_cast<int64_t>(made.back().size())}, entry.bytes = made.back();
      }
    }
    tensors.push_back(entry);
  }
  const std::filesystem::path out = folder.string() + fmt::format("-q{}", fmt::join(std::views::values(bits), ""));
  std::filesystem::create_directories(out);
  write_safetensors(out / "model.safetensors", tensors, {});
  std::filesystem::copy_file(folder / "config.json", out / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  return out;
}

inline std::vector<int32_t> random_tokens(int count, int vocab_size, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens = {0};
  while (static_cast<int>(tokens.size()) < count)
    tokens.push_back(1 + static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab_size) - 1)));
  return tokens;
}

}  // namespace tessera::engine
