#include "apps/random_weights.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "apps/quantised_bits.h"
#include "base/files.h"
#include "base/rng.h"
#include "core/config.h"
#include "core/model_file.h"
#include "core/safetensors.h"
#include "core/tensor_names.h"
#include "kernels/matvec.h"

namespace tessera {

void write_random_weights(const std::filesystem::path& folder) {
  const Json config = read_json_file(folder / "config.json");
  const int bits = bits_in(config);
  const auto bits_of = [&](const TensorSpec& spec) { return bits ? quantised_bits(spec, bits) : 0; };
  const std::vector<TensorSpec> specs = tensor_specs(architecture_from_json(config.at("model")));
  std::vector<TensorToWrite> list;
  for (const TensorSpec& spec : specs) {
    const int b = bits_of(spec);
    const int64_t bytes = b ? quantised_bytes(spec.shape[0], spec.shape[1], b) : num_elements(spec.shape) * 4;
    list.push_back({spec.name,
                    b ? "U8" : "F32",
                    b ? std::vector<int64_t>{bytes} : spec.shape,
                    {static_cast<const std::byte*>(nullptr), static_cast<size_t>(bytes)},
                    spec.page_start});
  }
  SafetensorsWriter writer(folder / "model.safetensors", list, {{kConfigHashKey, config_hash(config)}});
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[i];
    const int b = bits_of(spec);
    Rng rng(1, i);
    const bool is_norm = !spec.buffer && spec.shape.size() == 1;
    const double scale = 1.0 / std::sqrt(static_cast<double>(spec.shape.back()));
    const int64_t inputs = spec.shape.back(), outputs = num_elements(spec.shape) / inputs;
    const bool repeats = spec.part == Part::kBank || spec.part == Part::kComponent || spec.part == Part::kDense ||
                         spec.part == Part::kAttention || spec.part == Part::kAlwaysOn || spec.part == Part::kHead;
    const int64_t strip = repeats ? std::min<int64_t>(outputs, 64) : outputs;
    std::vector<float> values(static_cast<size_t>(strip * inputs));
    for (float& v : values) v = is_norm ? 1.0f : spec.buffer ? 0.0f : static_cast<float>(scale * rng.normal());
    std::vector<std::byte> packed(std::as_bytes(std::span(values)).begin(), std::as_bytes(std::span(values)).end());
    if (b > 0) {
      packed.resize(static_cast<size_t>(quantised_bytes(strip, inputs, b)));
      quantise_matrix(values.data(), strip, inputs, b, packed.data());
    }
    std::vector<std::byte> bytes(list[i].bytes.size());
    for (size_t at = 0; at < bytes.size(); at += packed.size())
      std::copy_n(packed.begin(), std::min(packed.size(), bytes.size() - at), &bytes[at]);
    writer.write(bytes);
  }
  writer.close();
}

void write_random_model(const std::filesystem::path& folder, const Architecture& architecture, int bits) {
  Json config = {{"format", "tessera-1"}, {"model", to_json(architecture)}};
  set_bits(config, bits);
  write_json_file(folder / "config.json", config);
  write_random_weights(folder);
}

}  // namespace tessera
