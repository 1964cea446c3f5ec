#include "engine/routers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "kernels/top_k.h"

namespace tessera::engine {
namespace {
constexpr float kBarred = -std::numeric_limits<float>::infinity();

[[noreturn]] void refuse_router(const std::string& level) {
  throw Error(ErrorCode::kData, "the " + level + " router's output is not finite",
              "the model's weights hold values that are not finite or far too large");
}
}  // namespace

Routers::Routers(const Architecture& architecture, const Weights& weights, std::vector<uint8_t> allowed,
                 Transformer& transformer)
    : architecture_(architecture),
      weights_(weights),
      allowed_(std::move(allowed)),
      transformer_(transformer),
      routed_(routed_domains(architecture.hierarchy)),
      added_(added_domains(architecture.hierarchy)),
      num_components_(static_cast<size_t>(num_components(architecture.hierarchy))) {
  const DomainRouter& d = architecture.domain_router;
  const ComponentRouter& c = architecture.component_router;
  if (d.kind == "random") {
    throw Error(ErrorCode::kConfig, "model.domain_router.kind 'random' is for training and evaluation only",
                "tessera-train eval runs it");
  }
  if (c.kind == "sum" || c.max_groups > 0) {
    throw Error(ErrorCode::kConfig,
                "model.component_router: kind '" + c.kind + "' with max_groups " + std::to_string(c.max_groups) +
                    " is an ablation that the engine does not run",
                "eval --suite runs it on the trainer");
  }
  encoder_rotary_ = Rotary(architecture.trunk.rope_theta, d.width / d.num_heads);
  planner_rotary_ = Rotary(architecture.trunk.rope_theta, c.width / c.num_heads);
  for (const Domain& domain : architecture.hierarchy.domains) domain_sizes_.push_back(domain.num_components);
  const int64_t scored = c.kind == "gate" ? 1 : num_component_layers(architecture);
  for (int64_t layer = 0; layer < scored; ++layer) {
    std::vector<int32_t>& offsets_N = offsets_.emplace_back();
    for (int64_t first = 0; const int64_t count : domain_sizes_) {
      for (int64_t i = 0; i < count; ++i) offsets_N.push_back(static_cast<int32_t>(first * scored + layer * count + i));
      first += count;
    }
  }
  routed_index_.assign(architecture.hierarchy.domains.size(), -1);
  for (size_t i = 0; i < routed_.size(); ++i) routed_index_[static_cast<size_t>(routed_[i])] = static_cast<int>(i);
}

void Routers::prepare(Sequence& sequence) const {
  const DomainRouter& d = architecture_.domain_router;
  const ComponentRouter& c = architecture_.component_router;
  // The routers' caches stay in f32: a choice must not depend on how the trunk's cache is kept.
  if (d.kind == "encoder") sequence.encoder = KvCache(KvType::kF32, d.num_layers, d.num_heads, d.width / d.num_heads);
  if (c.kind == "planner") sequence.planner = KvCache(KvType::kF32, c.num_layers, c.num_heads, c.width / c.num_heads);
  Route& route = sequence.route;
  route.num_domains = static_cast<int>(routed_.size());
  route.num_layers = num_component_layers(architecture_);
  route.num_active = architecture_.hierarchy.num_active;
}

std::vector<uint8_t> Routers::decided_domains(const Sequence& sequence) const {
  const Route& route = sequence.route;
  std::vector<uint8_t> previous;  // of the last decision; the chunks of a text are undecided only at its start
  if (route.chunk_starts_C.size() > 1)
    previous.assign(route.active_CM.end() - static_cast<int64_t>(routed_.size()), route.active_CM.end());
  return active_domains(sequence.next_pi_M, previous, allowed_, architecture_.domain_router.margin,
                        architecture_.domain_router.hysteresis, added_);
}

void Routers::begin_chunk(Sequence& sequence, int64_t position) {
  Route& route = sequence.route;
  const size_t m = routed_.size();
  if (architecture_.domain_router.kind == "oracle" && sequence.label >= 0) {
    sequence.next_pi_M.assign(m, 0.0f);
    sequence.next_pi_M[static_cast<size_t>(sequence.label)] = 1.0f;
    restrict_to_allowed(sequence.next_pi_M, allowed_);
  }
  std::vector<float> pi = sequence.next_pi_M;
  std::vector<uint8_t> active;
  if (!pi.empty()) {
    active = decided_domains(sequence);
  } else {
    pi = undecided_pi(architecture_, allowed_);
    for (const float p : pi) active.push_back(p > 0);
  }
  route.chunk_starts_C.push_back(static_cast<int32_t>(position));
  route.pi_CM.insert(route.pi_CM.end(), pi.begin(), pi.end());
  route.active_CM.insert(route.active_CM.end(), active.begin(), active.end());
  sequence.next_pi_M.clear();
}

void Routers::decide_domains(Sequence& sequence, int64_t begin) {
  const auto chunk = [&](int64_t t) { return chunk_of(static_cast<int>(t), architecture_.domain_router.chunk_tokens); };
  const auto begins_chunk = [&](int64_t t) { return t == 0 || chunk(t) != chunk(t - 1); };
  // What a chunk decides does not depend on what was decided before: those that end are encoded together.
  std::vector<int64_t> ends;
  for (int64_t t = begin; architecture_.domain_router.kind == "encoder" && t < sequence.length(); ++t) {
    if (begins_chunk(t + 1)) ends.push_back(t + 1);
  }
  std::vector<std::vector<float>> decided;
  if (!ends.empty())
    decided = encode_chunks(sequence, begins_chunk(begin) ? begin : sequence.route.chunk_starts_C.back(), ends);
  size_t done = 0;
  for (int64_t t = begin; t < sequence.length(); ++t) {
    if (begins_chunk(t)) begin_chunk(sequence, t);
    if (done < ends.size() && ends[done] == t + 1) sequence.next_pi_M = decided[done++];
  }
}

std::vector<std::vector<float>> Routers::encode_chunks(Sequence& sequence, int64_t begin,
                                                       const std::vector<int64_t>& ends) {
  const DomainRouter& d = architecture_.domain_router;
  const RouterWeights& router = weights_.domain_router;
  const float eps = static_cast<float>(architecture_.trunk.norm_eps);
  // In patches, which chunks never cut: `begin` and `ends` are multiples of patch_tokens.
  const int64_t patch = d.patch_tokens, first_patch = begin / patch, end = ends.back() / patch;
  const int64_t rows = end - first_patch, width = d.width,
                in_width = d.own_embedding ? width : architecture_.trunk.width;
  if (!d.own_embedding) embedded_.resize(rows, in_width);
  x_.resize(std::max(x_.size(), static_cast<size_t>(rows * width)));
  std::vector<RowPlace> places;
  sequence.encoder.reserve(end);
  encoder_rotary_.reserve(end);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = first_patch + r, seen = *std::upper_bound(ends.begin(), ends.end(), at * patch) / patch;
    places.push_back({&sequence.encoder, at, std::max<int64_t>(0, at - d.window_tokens / patch + 1), seen});
  }
  const WeightMatrix& table = d.own_embedding ? router.input : weights_.embedding;
  constexpr int64_t kPatches = 16;  // a task
  transformer_.pool().run(num_blocks(rows, kPatches), [&](int64_t task, int) {
    for (int64_t r = task * kPatches; r < std::min(rows, (task + 1) * kPatches); ++r) {
      const int32_t* tokens = &sequence.tokens[static_cast<size_t>((first_patch + r) * patch)];
      float* mean = d.own_embedding ? x_.data() + r * width : embedded_.row(r);
      copy_weight_row(table, tokens[0], mean);
      for (int64_t i = 1; i < patch; ++i) add_weight_row(table, tokens[i], mean);
      for (int64_t j = 0; j < in_width && patch > 1; ++j) mean[j] *= 1.0f / static_cast<float>(patch);
      if (!d.own_embedding) embedded_.quantise(r, router.input);
    }
  });
  if (!d.own_embedding) transformer_.project(router.input, embedded_, x_.data(), width, Store::kSet);
  for (size_t i = 0; i < router.blocks.size(); ++i) {
    transformer_.attention(router.blocks[i], static_cast<int>(i), d.num_heads, eps, encoder_rotary_, places, x_.data());
    transformer_.feed_forward(router.blocks[i], eps, rows, x_.data());
  }
  const size_t m = routed_.size();
  std::vector<float> pooled_CW(ends.size() * static_cast<size_t>(width), 0.0f), logits_CM(ends.size() * m);
  float* pooled = pooled_CW.data();
  for (int64_t first = 0; const int64_t chunk_end : ends) {
    const int64_t last = chunk_end / patch - first_patch;
    for (int64_t r = first; r < last; ++r) {
      for (int64_t i = 0; i < width; ++i) pooled[i] += x_[static_cast<size_t>(r * width + i)];
    }
    for (int64_t i = 0; i < width; ++i) pooled[i] *= 1.0f / static_cast<float>(last - first);
    first = last;
    pooled += width;
  }
  transformer_.norm(pooled_CW.data(), router.norm, static_cast<int64_t>(ends.size()), eps, router.heads[0], normed_);
  transformer_.project(router.heads[0], normed_, logits_CM.data(), static_cast<int64_t>(m), Store::kSet);
  std::vector<std::vector<float>> decided;
  for (auto logits = logits_CM.begin(); logits != logits_CM.end(); logits += static_cast<int64_t>(m)) {
    std::vector<float>& pi = decided.emplace_back(logits, logits + static_cast<int64_t>(m));
    logits_to_pi(pi, d, allowed_);
    if (!std::isfinite(std::accumulate(pi.begin(), pi.end(), 0.0f))) refuse_router("domain");
  }
  return decided;
}

void Routers::plan(std::span<const TokenRow> rows, const float* x_RD) {
  const ComponentRouter& c = architecture_.component_router;
  const Hierarchy& h = architecture_.hierarchy;
  const size_t m = routed_.size(), num_domains = h.domains.size();
  rows_.assign(rows.begin(), rows.end());
  choices_.assign(static_cast<size_t>(architecture_.trunk.num_layers), {});
  added_RD_.resize(rows.size() * num_domains);
  const TokenRow* previous = nullptr;
  size_t chunk = 0;
  for (size_t row = 0; row < rows.size(); previous = &rows[row++]) {
    const auto& [sequence, position] = rows[row];
    Route& route = sequence->route;
    if (sequence->records_route) {  // room for what pick() will record
      const size_t size =
          (static_cast<size_t>(position) + 1) * static_cast<size_t>(route.num_layers * route.num_active);
      if (route.components_TLK.size() < size) {
        route.components_TLK.resize(size);
        route.weights_TLK.resize(size);
      }
    }
    float* added = &added_RD_[row * num_domains];
    if (previous && previous->sequence == sequence && previous->position + 1 == position &&
        (chunk + 1 == route.chunk_starts_C.size() || position < route.chunk_starts_C[chunk + 1])) {
      std::copy_n(added - num_domains, num_domains, added);
      continue;
    }
    chunk = chunk_at(route, position);
    int64_t eligible = 0;
    for (size_t domain = 0; domain < num_domains; ++domain) {
      const int d = routed_index_[domain];
      added[domain] = kBarred;
      if (is_active(route, chunk, domain)) added[domain] = 0, eligible += domain_sizes_[domain];
      if (c.prior_weight != 0 && d >= 0) {
        constexpr float kEpsilon = 0.05f;
        const float pi =
            route.pi_CM[chunk * m + static_cast<size_t>(d)] * (1 - kEpsilon) + kEpsilon / static_cast<float>(m);
        added[domain] += std::log(pi) * static_cast<float>(c.prior_weight);
      }
    }
    TESSERA_CHECK(eligible >= h.num_active, "fewer eligible components than active ones");
  }
  if (c.kind != "planner") return;

  const RouterWeights& router = weights_.component_router;
  const float eps = static_cast<float>(architecture_.trunk.norm_eps);
  const int64_t num_rows = static_cast<int64_t>(rows.size()), width = c.width, embedding = architecture_.trunk.width;
  embedded_.resize(num_rows, embedding);
  std::copy_n(x_RD, num_rows * embedding, embedded_.values.begin());
  std::vector<RowPlace> places;
  for (int64_t r = 0; r < num_rows; ++r) {
    const TokenRow& row = rows[static_cast<size_t>(r)];
    row.sequence->planner.reserve(row.position + 1);
    planner_rotary_.reserve(row.position + 1);
    embedded_.quantise(r, router.input);
    places.push_back({&row.sequence->planner, row.position, 0, row.position + 1});
  }
  x_.resize(std::max(x_.size(), static_cast<size_t>(num_rows * width)));
  transformer_.project(router.input, embedded_, x_.data(), width, Store::kSet);
  for (size_t i = 0; i < router.blocks.size(); ++i) {
    transformer_.attention(router.blocks[i], static_cast<int>(i), c.num_heads, eps, planner_rotary_, places, x_.data());
    transformer_.feed_forward(router.blocks[i], eps, num_rows, x_.data());
  }
  transformer_.norm(x_.data(), router.norm, num_rows, eps, router.heads[0], normed_);
  choose(architecture_.trunk.num_dense_layers, normed_);
}

void Routers::choose(int layer, Activations& x) {
  const size_t k = static_cast<size_t>(architecture_.hierarchy.num_active);
  for (int l = layer; l < choosable_end(layer); ++l) {
    LayerChoice& choice = choices_[static_cast<size_t>(l)];
    choice.ids_RK.resize(rows_.size() * k);
    choice.weights_RK.resize(rows_.size() * k);
  }
  scores_.resize(static_cast<size_t>(transformer_.pool().size()));
  transformer_.for_row_blocks(static_cast<int64_t>(rows_.size()),
                              [&](Transformer& worker, int thread, int64_t first, int64_t count) {
                                choose_rows(worker, scores_[static_cast<size_t>(thread)], first, count, layer, x);
                              });
}

// One a domain; or a gate, for all of them.
std::span<const WeightMatrix> Routers::heads(int layer) const {
  if (architecture_.component_router.kind == "gate")
    return {&weights_.component_layers[static_cast<size_t>(layer)].router_gate, 1};
  return weights_.component_router.heads;
}

void Routers::choose_rows(Transformer& worker, AlignedVector<float>& scores, int64_t first, int64_t count, int layer,
                          Activations& x) {
  const std::span<const WeightMatrix> heads_of_layer = heads(layer);
  const size_t stride = num_components_ * offsets_.size(), num_domains = domain_sizes_.size();
  if (scores.size() < static_cast<size_t>(count) * stride) scores.resize(static_cast<size_t>(count) * stride);
  const bool one_for_all = architecture_.component_router.kind == "gate";
  std::vector<Product> products;
  float* out = scores.data();
  for (size_t d = 0; d < heads_of_layer.size(); ++d) {  // only those of active domains
    Product product = {heads_of_layer[d], {}};
    product.rows.reserve(static_cast<size_t>(count));
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = first + r;
      if (one_for_all || added_RD_[static_cast<size_t>(row) * num_domains + d] > kBarred)
        product.rows.push_back({x.row(row), x.quantised_row(row), out + static_cast<size_t>(r) * stride, 1.0f});
    }
    out += heads_of_layer[d].outputs;
    if (!product.rows.empty()) products.push_back(std::move(product));
  }
  worker.multiply_all(products, Store::kSet);
  constexpr int64_t kRows = 32;  // a task
  worker.pool().run(num_blocks(count, kRows), [&](int64_t task, int) {
    const int64_t begin = task * kRows, rows = std::min(kRows, count - begin);
    for (int l = layer; l < choosable_end(layer); ++l)
      pick(&scores[static_cast<size_t>(begin) * stride], l, first + begin, rows);
  });
}

// The choice of a layer for rows [first, first + count), whose scores these are.
void Routers::pick(const float* scores, int layer, int64_t first, int64_t count) {
  const size_t k = static_cast<size_t>(architecture_.hierarchy.num_active), begin = static_cast<size_t>(first),
               layers = static_cast<size_t>(num_component_layers(architecture_)),
               l = static_cast<size_t>(layer - architecture_.trunk.num_dense_layers);
  LayerChoice& choice = choices_[static_cast<size_t>(layer)];
  const Candidates candidates = {scores,
                                 static_cast<int64_t>(num_components_ * offsets_.size()),
                                 offsets_[l % offsets_.size()],  // a gate's scores are of this layer alone
                                 weights_.component_layers[static_cast<size_t>(layer)].selection_bias,
                                 domain_sizes_,
                                 &added_RD_[begin * domain_sizes_.size()]};
  if (!top_k(candidates, count, static_cast<int64_t>(k), &choice.ids_RK[begin * k], &choice.weights_RK[begin * k]))
    refuse_router("component");
  for (size_t r = begin; r < begin + static_cast<size_t>(count); ++r) {
    Sequence& sequence = *rows_[r].sequence;
    const size_t at = (static_cast<size_t>(rows_[r].position) * layers + l) * k;
    int32_t* ids = &choice.ids_RK[r * k];
    float* shares = &choice.weights_RK[r * k];
    if (sequence.replay) {
      std::copy_n(&sequence.replay->components_TLK[at], k, ids);
      std::copy_n(&sequence.replay->weights_TLK[at], k, shares);
    }
    if (sequence.records_route) {
      std::copy_n(ids, k, &sequence.route.components_TLK[at]);
      std::copy_n(shares, k, &sequence.route.weights_TLK[at]);
    }
  }
}

std::vector<uint8_t> Routers::domains_of_pass() const {
  std::vector<uint8_t> active_D(routed_index_.size(), 0);
  for (const TokenRow& row : rows_)
    add_active(row.sequence->replay ? *row.sequence->replay : row.sequence->route, row.position, active_D);
  return active_D;
}

std::vector<uint8_t> Routers::domains_after_pass() const {
  std::vector<uint8_t> active_D(routed_index_.size(), 0);
  for (const TokenRow& row : rows_) {
    const Sequence& sequence = *row.sequence;
    const int64_t next = sequence.length();
    if (row.position + 1 != next) continue;
    if (sequence.replay) {
      if (next < sequence.replay->num_tokens) add_active(*sequence.replay, next, active_D);
    } else if (!sequence.next_pi_M.empty()) {
      const std::vector<uint8_t> active_M = decided_domains(sequence);
      for (size_t m = 0; m < routed_.size(); ++m) active_D[static_cast<size_t>(routed_[m])] |= active_M[m];
    }
  }
  return active_D;
}

bool Routers::is_active(const Route& route, size_t chunk, size_t domain) const {
  const int d = routed_index_[domain];
  return d < 0 || route.active_CM[chunk * routed_.size() + static_cast<size_t>(d)];
}

void Routers::add_active(const Route& route, int64_t position, std::vector<uint8_t>& active_D) const {
  const size_t chunk = chunk_at(route, position);
  for (size_t d = 0; d < active_D.size(); ++d) active_D[d] |= is_active(route, chunk, d);
}

}  // namespace tessera::engine
