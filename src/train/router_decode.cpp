#include "train/router_decode.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace tessera {
namespace {

constexpr int64_t kGrowth = 256;

// Appends [1, H, Q, h] and gives what is in use.
at::Tensor append(at::Tensor& kept, int64_t length, const at::Tensor& fresh) {
  const int64_t count = fresh.size(2);
  if (!kept.defined() || kept.size(2) < length + count) {
    at::Tensor grown = at::empty({1, fresh.size(1), length + count + kGrowth, fresh.size(3)}, fresh.options());
    if (length > 0) grown.narrow(2, 0, length).copy_(kept.narrow(2, 0, length));
    kept = grown;
  }
  kept.narrow(2, length, count).copy_(fresh);
  return kept.narrow(2, 0, length + count);
}

// Positions [first, first + count) of a table that grows.
Rotary positions_of(Rotary& table, int64_t first, int64_t count, int head_dim, double theta) {
  if (!table.cos_RTh.defined() || table.cos_RTh.size(1) < first + count)
    table = rotary(at::arange(2 * (first + count) + kGrowth, at::kLong).unsqueeze(0), head_dim, theta, at::kFloat);
  return {table.cos_RTh.narrow(1, first, count), table.sin_RTh.narrow(1, first, count)};
}

}  // namespace

RouterDecoder::RouterDecoder(const Architecture& architecture, const Parameters& parameters)
    : a_(architecture), p_(parameters) {
  const std::string& kind = a_.domain_router.kind;
  TESSERA_CHECK(kind == "encoder" || kind == "uniform" || kind == "none", "no decoder for a level 1 of kind " + kind);
  TESSERA_CHECK(a_.component_router.kind == "planner", "no decoder for a level 2 of kind " + a_.component_router.kind);
  if (kind == "encoder") level1_.resize(static_cast<size_t>(a_.domain_router.num_layers));
  level2_.resize(static_cast<size_t>(a_.component_router.num_layers));
  const size_t m = routed_domains(a_.hierarchy).size();
  pi_.assign(m, 1.0f / static_cast<float>(m));
  std::vector<at::Tensor> biases;
  for (int l = a_.trunk.num_dense_layers; l < a_.trunk.num_layers; ++l)
    biases.push_back(p_["layers." + std::to_string(l) + ".selection_bias"]);
  bias_LN_ = at::stack(biases);
  set_active(std::vector<uint8_t>(m, 1));
}

// Gathers the heads of the eligible domains into one matrix, so that a token costs one product whatever is active.
void RouterDecoder::set_active(std::vector<uint8_t> active) {
  if (active == active_) return;
  active_ = std::move(active);
  const int64_t layers = num_component_layers(a_), width = a_.component_router.width;
  std::vector<at::Tensor> heads;
  columns_.clear();
  int64_t first = 0;
  size_t routed = 0;
  for (const Domain& domain : a_.hierarchy.domains) {
    const bool is_active = domain.always || active_[routed];
    routed += !domain.always;
    if (is_active) {
      heads.push_back(p_["component_router.heads." + domain.name].view({layers, domain.num_components, width}));
      for (int64_t c = first; c < first + domain.num_components; ++c) columns_.push_back(c);
    }
    first += domain.num_components;
  }
  heads_ = at::cat(heads, 1).view({-1, width});
  const at::Tensor index = at::tensor(columns_, at::kLong);
  active_bias_ = bias_LN_.index_select(1, index).unsqueeze(0).contiguous();
  column_index_ = index;
  all_ = {std::vector<int32_t>(columns_.size())};
  for (size_t i = 0; i < columns_.size(); ++i) all_[0][i] = static_cast<int32_t>(i);
}

at::Tensor RouterDecoder::block(const std::string& prefix, const at::Tensor& x_1QD, int num_heads, const Rotary& rope,
                                BlockCache& cache, int64_t first_key, const at::Tensor& mask) const {
  const double eps = a_.trunk.norm_eps;
  const int64_t count = x_1QD.size(1);
  const at::Tensor h = rms_norm(x_1QD, p_[prefix + "attention_norm"], eps);
  const auto heads = [&](const char* name) {
    return project(h, p_[prefix + "attention." + name]).view({1, count, num_heads, -1}).transpose(1, 2);
  };
  const at::Tensor query = rotate_heads(heads("query"), rope);
  const at::Tensor key = append(cache.key_1HTh, cache.length, rotate_heads(heads("key"), rope)),
                   value = append(cache.value_1HTh, cache.length, heads("value"));
  cache.length += count;
  const int64_t span = cache.length - first_key;
  const at::Tensor mixed =
      at::scaled_dot_product_attention(query, key.narrow(2, first_key, span), value.narrow(2, first_key, span),
                                       mask.defined() ? std::optional(mask) : std::nullopt);
  const at::Tensor x = x_1QD + project(mixed.transpose(1, 2).reshape({1, count, -1}), p_[prefix + "attention.output"]);
  const at::Tensor inner =
      swiglu_forward(project(rms_norm(x, p_[prefix + "feed_forward_norm"], eps), p_[prefix + "feed_forward.gate_up"]));
  return x + project(inner, p_[prefix + "feed_forward.down"]);
}

// Level 1 on the chunk that has just ended: its tokens see each other both ways, and the window before each.
void RouterDecoder::finish_chunk() {
  const DomainRouter& d = a_.domain_router;
  const int64_t count = position_ - chunk_begin_;
  at::Tensor x = at::cat(chunk_inputs_).unsqueeze(0);
  chunk_inputs_.clear();
  const int64_t first_key = std::max<int64_t>(0, chunk_begin_ - (d.window_tokens - 1)), span = position_ - first_key;
  const at::Tensor i = at::arange(chunk_begin_, position_, at::kLong), j = at::arange(first_key, position_, at::kLong);
  const at::Tensor mask =
      at::zeros({1, 1, count, span})
          .masked_fill_(j.unsqueeze(0).le(i.unsqueeze(1) - d.window_tokens), -std::numeric_limits<double>::infinity());
  const Rotary rope = positions_of(level1_rope_, chunk_begin_, count, d.width / d.num_heads, a_.trunk.rope_theta);
  for (size_t b = 0; b < level1_.size(); ++b)
    x = block("domain_router.layers." + std::to_string(b) + ".", x, d.num_heads, rope, level1_[b], first_key, mask);
  const at::Tensor pooled = rms_norm(x.mean(1), p_["domain_router.norm"], a_.trunk.norm_eps);
  const at::Tensor pi = at::softmax(project(pooled, p_["domain_router.head"]) / d.temperature, 1).contiguous();
  pi_.assign(pi.const_data_ptr<float>(), pi.const_data_ptr<float>() + pi.numel());
  previous_ = active_domains(pi_, previous_, {}, d.margin, d.hysteresis);
  set_active(previous_);
  chunk_begin_ = position_;
}

RouterDecoder::Choice RouterDecoder::step(int64_t token, const at::Tensor& embedded_D) {
  const ComponentRouter& c = a_.component_router;
  // A chunk's decision is for the chunk behind it, so it is made when that begins.
  if (!level1_.empty() && position_ > 0 &&
      chunk_of(static_cast<int>(position_), a_.domain_router.chunk_tokens) !=
          chunk_of(static_cast<int>(position_ - 1), a_.domain_router.chunk_tokens)) {
    finish_chunk();
  }
  if (!level1_.empty()) {
    chunk_inputs_.push_back(a_.domain_router.own_embedding
                                ? p_["domain_router.embedding"].narrow(0, token, 1)
                                : project(embedded_D.unsqueeze(0), p_["domain_router.input"]));
  }
  at::Tensor x = project(embedded_D.view({1, 1, -1}), p_["component_router.input"]);
  const Rotary rope = positions_of(level2_rope_, position_, 1, c.width / c.num_heads, a_.trunk.rope_theta);
  for (size_t b = 0; b < level2_.size(); ++b)
    x = block("component_router.layers." + std::to_string(b) + ".", x, c.num_heads, rope, level2_[b], 0, {});
  ++position_;
  x = rms_norm(x, p_["component_router.norm"], a_.trunk.norm_eps).view({1, -1});
  const at::Tensor scores = project(x, heads_).view({1, num_component_layers(a_), -1});
  const at::Tensor places = top_components(scores, active_bias_[0], {0}, all_, a_.hierarchy.num_active);
  const at::Tensor chosen = scores.gather(2, places);
  const at::Tensor weights =
      a_.hierarchy.num_active == 1 ? at::exp(chosen - at::logsumexp(scores, {2}, true)) : at::softmax(chosen, 2);
  return {column_index_.index_select(0, places.view({-1})).view(places.sizes())[0], weights[0]};
}

}  // namespace tessera
