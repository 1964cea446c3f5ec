#include "core/tensor_names.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace tessera {
namespace {

using Shape = std::vector<int64_t>;

class SpecList {
 public:
  void add(const std::string& name, Shape shape, Part part, int layer = -1) {
    specs_.push_back({name, std::move(shape), part, layer, -1, false, name, -1, 0, false});
  }
  void add_buffer(const std::string& name, Shape shape, Part part, int layer) {
    add(name, std::move(shape), part, layer);
    specs_.back().buffer = true;
  }
  // Element `index` of a stacked parameter, rows [row, row + shape[0]) of it.
  void add_slice(const std::string& name, Shape shape, Part part, int layer, int index, bool page_start,
                 const std::string& parameter, int64_t row) {
    specs_.push_back({name, std::move(shape), part, layer, index, page_start, parameter, index, row, false});
  }
  // A pre-norm transformer block of a router: full attention heads, SwiGLU of twice the width.
  void add_router_block(const std::string& prefix, int64_t width, Part part) {
    for (const char* matrix : {"query", "key", "value", "output"})
      add(prefix + "attention." + matrix, {width, width}, part);
    add(prefix + "attention_norm", {width}, part);
    add(prefix + "feed_forward.gate_up", {4 * width, width}, part);
    add(prefix + "feed_forward.down", {width, 2 * width}, part);
    add(prefix + "feed_forward_norm", {width}, part);
  }
  std::vector<TensorSpec> take() { return std::move(specs_); }

 private:
  std::vector<TensorSpec> specs_;
};

void add_component_layer(SpecList& list, const Architecture& a, int layer) {
  const Hierarchy& h = a.hierarchy;
  const int64_t width = a.trunk.width, base = h.base_width, unique = h.unique_width;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  for (int g = 0; g < h.num_banks; ++g) {
    const std::string name = prefix + "banks." + std::to_string(g) + ".";
    const std::string parameter = prefix + "banks.gate_up";
    list.add_slice(name + "gate", {base, width}, Part::kBank, layer, g, true, parameter, 0);
    list.add_slice(name + "up", {base, width}, Part::kBank, layer, g, false, parameter, base);
  }
  for (int c = 0; c < num_components(h); ++c) {
    const std::string name = prefix + "components." + std::to_string(c) + ".";
    if (unique > 0) {
      list.add_slice(name + "gate", {unique, width}, Part::kComponent, layer, c, true, prefix + "components.gate_up",
                     0);
      list.add_slice(name + "up", {unique, width}, Part::kComponent, layer, c, false, prefix + "components.gate_up",
                     unique);
    }
    list.add_slice(name + "down", {width, base + unique}, Part::kComponent, layer, c, unique == 0,
                   prefix + "components.down", 0);
  }
  if (h.always_on_width > 0) {
    list.add(prefix + "always_on.gate_up", {2 * h.always_on_width, width}, Part::kAlwaysOn, layer);
    list.add(prefix + "always_on.down", {width, h.always_on_width}, Part::kAlwaysOn, layer);
  }
  list.add_buffer(prefix + "selection_bias", {num_components(h)}, Part::kComponentRouter, layer);
  if (a.component_router.kind == "gate" || a.component_router.kind == "sum")
    list.add(prefix + "router_gate", {num_components(h), width}, Part::kComponentRouter, layer);
}

void add_routers(SpecList& list, const Architecture& a) {
  const DomainRouter& d = a.domain_router;
  if (d.kind == "encoder") {
    if (d.own_embedding) {
      list.add("domain_router.embedding", {a.trunk.vocab_size, d.width}, Part::kDomainRouter);
    } else {
      list.add("domain_router.input", {d.width, a.trunk.width}, Part::kDomainRouter);
    }
    for (int i = 0; i < d.num_layers; ++i)
      list.add_router_block("domain_router.layers." + std::to_string(i) + ".", d.width, Part::kDomainRouter);
    list.add("domain_router.norm", {d.width}, Part::kDomainRouter);
    list.add("domain_router.head", {static_cast<int64_t>(routed_domains(a.hierarchy).size()), d.width},
             Part::kDomainRouter);
  }
  const ComponentRouter& c = a.component_router;
  const bool own_blocks = c.kind == "planner" || c.kind == "sum";
  if (own_blocks) {
    list.add("component_router.input", {c.width, a.trunk.width}, Part::kComponentRouter);
    for (int i = 0; i < c.num_layers; ++i)
      list.add_router_block("component_router.layers." + std::to_string(i) + ".", c.width, Part::kComponentRouter);
    list.add("component_router.norm", {c.width}, Part::kComponentRouter);
  }
  if (own_blocks || c.kind == "trunk") {
    for (const Domain& domain : a.hierarchy.domains) {  // z of all layers at once, layer-major
      list.add("component_router.heads." + domain.name,
               {static_cast<int64_t>(num_component_layers(a)) * domain.num_components, width_of_heads(a)},
               Part::kComponentRouter);
    }
  }
}

}  // namespace

const char* part_name(Part part) {
  switch (part) {
    case Part::kEmbedding:
      return "embedding";
    case Part::kHead:
      return "head";
    case Part::kAttention:
      return "attention";
    case Part::kNorm:
      return "norms";
    case Part::kDense:
      return "dense feed-forward";
    case Part::kBank:
      return "base banks";
    case Part::kComponent:
      return "components";
    case Part::kAlwaysOn:
      return "always-on component";
    case Part::kDomainRouter:
      return "domain router";
    case Part::kComponentRouter:
      return "component router";
  }
  return "";
}

int64_t num_elements(const Shape& shape) {
  int64_t n = 1;
  for (int64_t s : shape) n *= s;
  return n;
}

std::vector<TensorSpec> tensor_specs(const Architecture& a) {
  const Trunk& t = a.trunk;
  const int64_t width = t.width, heads = static_cast<int64_t>(t.num_heads) * head_dim(t),
                kv_heads = static_cast<int64_t>(t.num_kv_heads) * head_dim(t);
  SpecList list;
  list.add("embedding", {t.vocab_size, width}, Part::kEmbedding);
  if (t.previous_token) list.add("previous_token", {width, width}, Part::kAttention);
  if (num_component_layers(a) > 0) add_routers(list, a);
  for (int l = 0; l < t.num_layers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    list.add(prefix + "attention_norm", {width}, Part::kNorm, l);
    list.add(prefix + "attention.query", {heads, width}, Part::kAttention, l);
    list.add(prefix + "attention.key", {kv_heads, width}, Part::kAttention, l);
    list.add(prefix + "attention.value", {kv_heads, width}, Part::kAttention, l);
    list.add(prefix + "attention.output", {width, heads}, Part::kAttention, l);
    list.add(prefix + "feed_forward_norm", {width}, Part::kNorm, l);
    if (has_components(a, l)) {
      add_component_layer(list, a, l);
    } else {
      list.add(prefix + "feed_forward.gate_up", {2 * t.dense_width, width}, Part::kDense, l);
      list.add(prefix + "feed_forward.down", {width, t.dense_width}, Part::kDense, l);
    }
  }
  list.add("final_norm", {width}, Part::kNorm);
  if (!t.tied_embeddings) list.add("head", {t.vocab_size, width}, Part::kHead);
  return list.take();
}

std::vector<ParameterSpec> parameter_specs(const Architecture& a) {
  std::vector<ParameterSpec> parameters;
  std::map<std::string, size_t> place;
  for (const TensorSpec& tensor : tensor_specs(a)) {
    const auto [it, is_new] = place.emplace(tensor.parameter, parameters.size());
    if (tensor.slice < 0) {
      parameters.push_back({tensor.parameter, tensor.shape, tensor.part, tensor.buffer});
      continue;
    }
    Shape shape = tensor.shape;
    shape.insert(shape.begin(), tensor.slice + 1);
    shape[1] = tensor.row + tensor.shape[0];
    if (is_new) {
      parameters.push_back({tensor.parameter, shape, tensor.part, tensor.buffer});
    } else {
      Shape& known = parameters[it->second].shape;
      known[0] = std::max(known[0], shape[0]);
      known[1] = std::max(known[1], shape[1]);
    }
  }
  return parameters;
}

int width_of_heads(const Architecture& a) {
  const ComponentRouter& c = a.component_router;
  return c.kind == "trunk" ? a.trunk.width : c.width;
}

}  // namespace tessera
