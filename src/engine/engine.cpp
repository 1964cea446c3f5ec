#include "engine/engine.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace tessera::engine {

Engine::Engine(ModelFolder model, EngineOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      residency_(options_.plan
                     ? std::make_unique<Residency>(model_, *options_.plan, options_.allowed_domains, options_.paging)
                     : nullptr),
      weights_(load_weights(model_,
                            [this](const TensorInfo& tensor) {
                              return residency_ ? residency_->bytes(tensor) : model_.weights->bytes(tensor).data();
                            })),
      pool_(options_.num_threads),
      transformer_(pool_),
      routers_(model_.architecture, weights_, options_.allowed_domains, transformer_),
      component_layer_(model_.architecture.hierarchy, transformer_, residency_.get()),
      rotary_(model_.architecture.trunk.rope_theta, head_dim(model_.architecture.trunk),
              model_.architecture.trunk.rope_divisors) {}

Sequence Engine::new_sequence(bool records_route) const {
  const Trunk& t = model_.architecture.trunk;
  Sequence sequence;
  sequence.trunk = KvCache(options_.kv_type, t.num_layers, t.num_kv_heads, head_dim(t));
  sequence.records_route = records_route;
  if (num_component_layers(model_.architecture) > 0) routers_.prepare(sequence);
  return sequence;
}

int64_t Engine::reusable_prefix(int64_t most) const {
  if (num_component_layers(model_.architecture) == 0) return most;
  const int chunk_tokens = model_.architecture.domain_router.chunk_tokens;
  while (most > 0 &&
         chunk_of(static_cast<int>(most), chunk_tokens) == chunk_of(static_cast<int>(most) - 1, chunk_tokens))
    --most;
  return most;
}

Sequence Engine::prefix_of(const Sequence& from, int64_t num_tokens) const {
  TESSERA_CHECK(num_tokens <= from.length() && reusable_prefix(num_tokens) == num_tokens, "no reusable prefix");
  Sequence sequence = new_sequence(from.records_route);
  sequence.tokens.assign(from.tokens.begin(), from.tokens.begin() + num_tokens);
  sequence.trunk = from.trunk.prefix(num_tokens);
  if (num_component_layers(model_.architecture) == 0) return sequence;
  const DomainRouter& level1 = model_.architecture.domain_router;
  sequence.encoder = from.encoder.prefix(level1.kind == "encoder" ? num_tokens / level1.patch_tokens : 0);
  sequence.planner = from.planner.prefix(model_.architecture.component_router.kind == "planner" ? num_tokens : 0);
  Route& route = sequence.route;
  const size_t m = static_cast<size_t>(route.num_domains);
  size_t chunks = 0;
  while (chunks < from.route.chunk_starts_C.size() && from.route.chunk_starts_C[chunks] < num_tokens) ++chunks;
  route.chunk_starts_C.assign(from.route.chunk_starts_C.begin(),
                              from.route.chunk_starts_C.begin() + static_cast<int64_t>(chunks));
  route.pi_CM.assign(from.route.pi_CM.begin(), from.route.pi_CM.begin() + static_cast<int64_t>(chunks * m));
  route.active_CM.assign(from.route.active_CM.begin(), from.route.active_CM.begin() + static_cast<int64_t>(chunks * m));
  if (from.records_route) {
    const int64_t choices = num_tokens * route.num_layers * route.num_active;
    route.components_TLK.assign(from.route.components_TLK.begin(), from.route.components_TLK.begin() + choices);
    route.weights_TLK.assign(from.route.weights_TLK.begin(), from.route.weights_TLK.begin() + choices);
  }
  if (model_.architecture.domain_router.kind == "encoder" && num_tokens > 0) {
    // What was decided at the end of the last chunk taken over: in force in the chunk after it, or still waiting.
    if (chunks < from.route.chunk_starts_C.size()) {
      sequence.next_pi_M.assign(&from.route.pi_CM[chunks * m], &from.route.pi_CM[chunks * m] + m);
    } else {
      sequence.next_pi_M = from.next_pi_M;
    }
  }
  return sequence;
}

// x_t += P e_(t-1).
void Engine::add_previous_tokens(std::span<const TokenRow> rows) {
  const int64_t num_rows = static_cast<int64_t>(rows.size()), width = model_.architecture.trunk.width;
  previous_.resize(num_rows, width);
  pool_.run(num_rows, [&](int64_t r, int) {
    const TokenRow& row = rows[static_cast<size_t>(r)];
    if (row.position > 0) {
      copy_weight_row(weights_.embedding, row.sequence->tokens[static_cast<size_t>(row.position - 1)],
                      previous_.row(r));
    } else {
      std::fill_n(previous_.row(r), width, 0.0f);
    }
    previous_.quantise(r, weights_.previous_token);
  });
  transformer_.project(weights_.previous_token, previous_, x_.data(), width, Store::kAdd);
}

// Lets components be read that were chosen for the layers from `layer` on.
void Engine::expect_choices(int layer) {
  if (!residency_) return;
  const int first = model_.architecture.trunk.num_dense_layers;
  for (int l = layer; l < routers_.choosable_end(layer); ++l) residency_->expect(l - first, routers_.choice(l).ids_RK);
  if (layer == first) residency_->announce(routers_.domains_after_pass());
}

// Takes the tokens in, embeds them and routes them.
Engine::Pass Engine::begin_pass(std::span<const Segment> segments) {
  const Trunk& t = model_.architecture.trunk;
  const bool has_routes = num_component_layers(model_.architecture) > 0;
  for (const Segment& segment : segments) {
    const int64_t end = segment.sequence->length() + static_cast<int64_t>(segment.tokens.size());
    if (end > t.context_length) {
      throw Error(ErrorCode::kData,
                  fmt::format("a text of {} tokens is longer than the model's context of {}", end, t.context_length),
                  "shorten the text");
    }
    for (int32_t token : segment.tokens) {
      if (token >= 0 && token < t.vocab_size) continue;
      throw Error(ErrorCode::kData, fmt::format("token {} is not in the model's vocabulary of {}", token, t.vocab_size),
                  "the tokenizer is not the one that the model was trained with");
    }
  }
  Pass pass;
  for (const Segment& segment : segments) {
    Sequence& sequence = *segment.sequence;
    const int64_t begin = sequence.length();
    sequence.tokens.insert(sequence.tokens.end(), segment.tokens.begin(), segment.tokens.end());
    sequence.route.num_tokens = static_cast<int>(sequence.length());
    for (int64_t p = begin; p < sequence.length(); ++p) {
      if (segment.outputs == Outputs::kAll || (segment.outputs == Outputs::kLast && p + 1 == sequence.length()))
        pass.wanted.push_back(static_cast<int64_t>(pass.rows.size()));
      pass.rows.push_back({&sequence, p});
      pass.places.push_back({&sequence.trunk, p, 0, p + 1});
    }
  }
  if (pass.rows.empty()) return pass;
  const int64_t num_rows = static_cast<int64_t>(pass.rows.size());
  if (x_.size() < static_cast<size_t>(num_rows * t.width)) x_.resize(static_cast<size_t>(num_rows * t.width));
  pool_.run(num_rows, [&](int64_t r, int) {
    const TokenRow& row = pass.rows[static_cast<size_t>(r)];
    copy_weight_row(weights_.embedding, row.sequence->tokens[static_cast<size_t>(row.position)],
                    &x_[static_cast<size_t>(r * t.width)]);
  });
  if (t.previous_token) add_previous_tokens(pass.rows);
  if (!has_routes) return pass;
  {
    const Stopwatch stopwatch(routing_s_);
    for (const Segment& segment : segments)
      routers_.decide_domains(*segment.sequence,
                              segment.sequence->length() - static_cast<int64_t>(segment.tokens.size()));
    routers_.plan(pass.rows, x_.data());
  }
  if (residency_) residency_->begin_pass(num_rows, routers_.domains_of_pass());
  if (routers_.chooses_early()) expect_choices(t.num_dense_layers);
  return pass;
}

std::span<const float> Engine::forward(std::span<const Segment> segments) {
  const Architecture& a = model_.architecture;
  const Trunk& t = a.trunk;
  const int64_t width = t.width;
  const float eps = static_cast<float>(t.norm_eps);
  Pass pass = begin_pass(segments);
  if (pass.rows.empty()) return {};
  const int64_t num_rows = static_cast<int64_t>(pass.rows.size());
  for (const Segment& segment : segments) {
    segment.sequence->trunk.reserve(segment.sequence->length());
    rotary_.reserve(segment.sequence->length());
  }

  for (int layer = 0; layer < t.num_layers; ++layer) {
    const BlockWeights& block = weights_.blocks[static_cast<size_t>(layer)];
    transformer_.attention(block, layer, t.num_heads, eps, rotary_, pass.places, x_.data());
    if (!has_components(a, layer)) {
      transformer_.feed_forward(block, eps, num_rows, x_.data());
      continue;
    }
    const ComponentLayerWeights& components = weights_.component_layers[static_cast<size_t>(layer)];
    const LayerChoice& choice = routers_.choice(layer);
    transformer_.norm(x_.data(), block.feed_forward_norm, num_rows, eps, components.components[0].down, normed_);
    if (choice.ids_RK.empty()) {
      {
        const Stopwatch stopwatch(routing_s_);
        routers_.choose(layer, normed_);
      }
      expect_choices(layer);
    }
    component_layer_.add(components, choice, normed_, x_.data(), width);
  }
  if (!residency_) model_.weights->file().check_intact();

  const std::vector<int64_t>& wanted = pass.wanted;
  hidden_.resize(std::max(hidden_.size(), wanted.size() * static_cast<size_t>(width)));
  for (size_t i = 0; i < wanted.size(); ++i) {
    float* out = &hidden_[i * static_cast<size_t>(width)];
    rms_norm_row(&x_[static_cast<size_t>(wanted[i] * width)], weights_.final_norm.data(), width, eps, out);
    check_finite({out, static_cast<size_t>(width)});
  }
  return {hidden_.data(), wanted.size() * static_cast<size_t>(width)};
}

void Engine::check_finite(std::span<const float> values) const {
  uint32_t largest_bits = 0;
  for (const float v : values) largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(v) & 0x7fffffffu);
  if (largest_bits < 0x7f800000u) return;  // of an infinity
  throw Error(ErrorCode::kData, model_.path.string() + ": the model's output is not finite",
              "its weights hold values that are not finite or far too large");
}

void Engine::logits(std::span<const float> hidden_RD, float* out_RV) {
  const int64_t width = model_.architecture.trunk.width, rows = static_cast<int64_t>(hidden_RD.size()) / width;
  head_input_.resize(rows, width);
  std::copy(hidden_RD.begin(), hidden_RD.end(), head_input_.values.begin());
  if (weights_.head.is_quantised()) pool_.run(rows, [&](int64_t r, int) { head_input_.quantise(r, weights_.head); });
  transformer_.project(weights_.head, head_input_, out_RV, vocab_size(), Store::kSet);
  if (!residency_) model_.weights->file().check_intact();
  check_finite({out_RV, static_cast<size_t>(rows * vocab_size())});
}

}  // namespace tessera::engine
