#include "engine/weights.h"

#include <optional>

#include "base/error.h"
#include "base/float_bits.h"
#include "base/load.h"

namespace tessera::engine {
namespace {

class Loader {
 public:
  Loader(const ModelFolder& model, const TensorBytes& bytes) : file_(*model.weights), bytes_(bytes) {}

  WeightMatrix matrix(const std::string& name, int64_t outputs, int64_t inputs) const {
    const TensorInfo& tensor = file_.at(name);
    WeightMatrix matrix = {bytes_(tensor), WeightType::kF32, outputs, inputs};
    if (tensor.dtype == "BF16") {
      matrix.type = WeightType::kBF16;
    } else if (tensor.dtype == "F16") {
      matrix.type = WeightType::kF16;
    } else if (tensor.dtype == "U8") {
      matrix.type = file_.bytes(tensor).size() == static_cast<size_t>(quantised_bytes(outputs, inputs, 8))
                        ? WeightType::kQ8
                        : WeightType::kQ4;
    } else if (tensor.dtype != "F32") {
      refuse(tensor);
    }
    TESSERA_CHECK(tensor.end - tensor.begin == static_cast<uint64_t>(matrix_bytes(matrix.type, outputs, inputs)), name);
    // Matrices of a block read the same rows, in one form; embeddings, what reads the token before and head (no dot)
    // stand alone.
    if (matrix.is_quantised() && name.find('.') != std::string::npos) {
      if (quantised_.value_or(matrix.type) != matrix.type) {
        throw Error(ErrorCode::kData,
                    fmt::format("{}: tensor '{}' has other bits than those before it", file_.path().string(), name),
                    "8 and 4 bits don't mix within the blocks; quantize the model anew");
      }
      quantised_ = matrix.type;
    }
    return matrix;
  }

  std::vector<float> vector(const std::string& name) const {
    const TensorInfo& tensor = file_.at(name);
    const std::byte* bytes = bytes_(tensor);
    std::vector<float> values(static_cast<size_t>(num_elements(tensor.shape)));
    for (size_t i = 0; i < values.size(); ++i) {
      if (tensor.dtype == "F32") {
        values[i] = load<float>(bytes + 4 * i);
      } else if (tensor.dtype == "BF16" || tensor.dtype == "F16") {
        const uint16_t half = load<uint16_t>(bytes + 2 * i);
        values[i] = tensor.dtype == "BF16" ? float_from_bf16(half) : float_from_f16(half);
      } else {
        refuse(tensor);
      }
    }
    return values;
  }

  BlockWeights router_block(const std::string& prefix, int64_t width) const {
    BlockWeights block;
    block.attention_norm = vector(prefix + "attention_norm");
    block.query = matrix(prefix + "attention.query", width, width);
    block.key = matrix(prefix + "attention.key", width, width);
    block.value = matrix(prefix + "attention.value", width, width);
    block.output = matrix(prefix + "attention.output", width, width);
    block.feed_forward_norm = vector(prefix + "feed_forward_norm");
    block.gate_up = matrix(prefix + "feed_forward.gate_up", 4 * width, width);
    block.down = matrix(prefix + "feed_forward.down", width, 2 * width);
    return block;
  }

 private:
  [[noreturn]] void refuse(const TensorInfo& tensor) const {
    throw Error(ErrorCode::kData,
                file_.path().string() + ": tensor '" + tensor.name + "': the engine doesn't run dtype " + tensor.dtype,
                "F32, BF16, F16 and what `quantize` writes are run");
  }
  const SafetensorsFile& file_;
  const TensorBytes& bytes_;
  mutable std::optional<WeightType> quantised_;
};

ComponentLayerWeights load_component_layer(const Loader& load, const Architecture& a, const std::string& prefix) {
  const Hierarchy& h = a.hierarchy;
  const int64_t width = a.trunk.width;
  ComponentLayerWeights layer;
  for (int g = 0; g < h.num_banks; ++g) {
    const std::string name = prefix + "banks." + std::to_string(g) + ".";
    layer.banks.push_back(
        {load.matrix(name + "gate", h.base_width, width), load.matrix(name + "up", h.base_width, width)});
  }
  for (int c = 0; c < num_components(h); ++c) {
    const std::string name = prefix + "components." + std::to_string(c) + ".";
    ComponentWeights component;
    if (h.unique_width > 0) {
      component.gate = load.matrix(name + "gate", h.unique_width, width);
      component.up = load.matrix(name + "up", h.unique_width, width);
    }
    component.down = load.matrix(name + "down", width, h.base_width + h.unique_width);
    layer.components.push_back(component);
  }
  if (h.always_on_width > 0) {
    layer.always_on_gate_up = load.matrix(prefix + "always_on.gate_up", 2 * h.always_on_width, width);
    layer.always_on_down = load.matrix(prefix + "always_on.down", width, h.always_on_width);
  }
  layer.selection_bias = load.vector(prefix + "selection_bias");
  if (a.component_router.kind == "gate")
    layer.router_gate = load.matrix(prefix + "router_gate", num_components(h), width);
  return layer;
}

void load_routers(const Loader& load, const Architecture& a, Weights& weights) {
  const DomainRouter& d = a.domain_router;
  if (d.kind == "encoder") {
    RouterWeights& router = weights.domain_router;
    router.input = d.own_embedding ? load.matrix("domain_router.embedding", a.trunk.vocab_size, d.width)
                                   : load.matrix("domain_router.input", d.width, a.trunk.width);
    for (int i = 0; i < d.num_layers; ++i)
      router.blocks.push_back(load.router_block("domain_router.layers." + std::to_string(i) + ".", d.width));
    router.norm = load.vector("domain_router.norm");
    router.heads = {
        load.matrix("domain_router.head", static_cast<int64_t>(routed_domains(a.hierarchy).size()), d.width)};
  }
  const ComponentRouter& c = a.component_router;
  RouterWeights& router = weights.component_router;
  if (c.kind == "planner") {
    router.input = load.matrix("component_router.input", c.width, a.trunk.width);
    for (int i = 0; i < c.num_layers; ++i)
      router.blocks.push_back(load.router_block("component_router.layers." + std::to_string(i) + ".", c.width));
    router.norm = load.vector("component_router.norm");
  }
  for (size_t i = 0; c.kind != "gate" && i < a.hierarchy.domains.size(); ++i) {
    const Domain& domain = a.hierarchy.domains[i];
    router.heads.push_back(load.matrix("component_router.heads." + domain.name,
                                       static_cast<int64_t>(num_component_layers(a)) * domain.num_components,
                                       width_of_heads(a)));
  }
}

}  // namespace

Weights load_weights(const ModelFolder& model, const TensorBytes& bytes) {
  const Architecture& a = model.architecture;
  const Trunk& t = a.trunk;
  const Loader load(model, bytes);
  const int64_t width = t.width, heads = static_cast<int64_t>(t.num_heads) * head_dim(t),
                kv_heads = static_cast<int64_t>(t.num_kv_heads) * head_dim(t);
  Weights weights;
  weights.embedding = load.matrix("embedding", t.vocab_size, width);
  if (t.previous_token) weights.previous_token = load.matrix("previous_token", width, width);
  weights.head = t.tied_embeddings ? weights.embedding : load.matrix("head", t.vocab_size, width);
  weights.final_norm = load.vector("final_norm");
  if (num_component_layers(a) > 0) load_routers(load, a, weights);
  for (int l = 0; l < t.num_layers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    BlockWeights block;
    block.attention_norm = load.vector(prefix + "attention_norm");
    block.query = load.matrix(prefix + "attention.query", heads, width);
    block.key = load.matrix(prefix + "attention.key", kv_heads, width);
    block.value = load.matrix(prefix + "attention.value", kv_heads, width);
    block.output = load.matrix(prefix + "attention.output", width, heads);
    block.feed_forward_norm = load.vector(prefix + "feed_forward_norm");
    weights.component_layers.emplace_back();
    if (has_components(a, l)) {
      weights.component_layers.back() = load_component_layer(load, a, prefix);
    } else {
      block.gate_up = load.matrix(prefix + "feed_forward.gate_up", 2 * static_cast<int64_t>(t.dense_width), width);
      block.down = load.matrix(prefix + "feed_forward.down", width, t.dense_width);
    }
    weights.blocks.push_back(std::move(block));
  }
  // Heads on the trunk read their input in the form that the components want.
  const std::vector<WeightMatrix>& scorers = weights.component_router.heads;
  if (a.component_router.kind == "trunk" && !scorers.empty() && scorers[0].is_quantised() &&
      !weights.component_layers.back().components[0].down.is_quantised()) {
    throw Error(ErrorCode::kData, model.path.string() + ": level 2's heads are quantised, the components are not",
                "quantize the model anew");
  }
  return weights;
}

}  // namespace tessera::engine
