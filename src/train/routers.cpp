#include "train/routers.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"

namespace tessera {
namespace {

// [C, M] share of each domain among the labelled tokens of each chunk; zeros where none is labelled.
std::vector<float> label_shares(const PackedRows& rows, int num_domains) {
  std::vector<float> shares(rows.chunks.size() * static_cast<size_t>(num_domains), 0.0f);
  if (rows.labels_RT.empty()) return shares;
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const PackedRows::Chunk& chunk = rows.chunks[c];
    int64_t labelled = 0;
    float* share = &shares[c * static_cast<size_t>(num_domains)];
    for (int64_t t = chunk.begin; t < chunk.end; ++t) {
      const int label = rows.labels_RT[static_cast<size_t>(chunk.row * rows.num_tokens + t)];
      if (label < 0) continue;
      share[label] += 1;
      ++labelled;
    }
    for (int d = 0; labelled > 0 && d < num_domains; ++d) share[d] /= static_cast<float>(labelled);
  }
  return shares;
}

// Level 1's logits at the end of each chunk: the mean of its tokens' outputs through the head.
at::Tensor encode_chunks(const Architecture& a, const Parameters& p, const PackedRows& rows,
                         const at::Tensor& embedded_RTD) {
  const DomainRouter& d = a.domain_router;
  const double eps = a.trunk.norm_eps;
  at::Tensor x = project(embedded_RTD.detach(), p["domain_router.input"]);
  const Rotary rope = rotary(rows.positions_RT, d.width / d.num_heads, a.trunk.rope_theta, x.scalar_type());
  const Visible visible = block_causal(rows.starts_RT, rows.chunk_ends_RT, d.window_tokens, x);
  for (int i = 0; i < d.num_layers; ++i)
    x = router_block(p, "domain_router.layers." + std::to_string(i) + ".", x, d.num_heads, eps, rope, visible);
  const int64_t num_chunks = static_cast<int64_t>(rows.chunks.size());
  std::vector<double> inverse;
  for (const auto& chunk : rows.chunks) inverse.push_back(1.0 / static_cast<double>(chunk.end - chunk.begin));
  const at::Tensor scale = at::tensor(inverse, at::kDouble).to(x.device(), x.scalar_type()).unsqueeze(1);
  const at::Tensor pooled =
      at::zeros({num_chunks, x.size(-1)}, x.options()).index_add(0, rows.chunk_id_S, x.reshape({-1, x.size(-1)})) *
      scale;
  const at::Tensor logits = project(rms_norm(pooled, p["domain_router.norm"], eps), p["domain_router.head"]);
  return logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
}

bool is_dropped(const RoutingOptions& options, const PackedRows::Chunk& chunk) {
  if (options.domain_dropout <= 0) return false;
  Rng rng(options.dropout_seed, mix64(static_cast<uint64_t>(chunk.row)) ^ static_cast<uint64_t>(chunk.piece_start));
  return rng.uniform() < options.domain_dropout;
}

// pi and the active domains of every chunk, from `decided` [C, M]: the distribution that would be in force in the chunk
// (rows of zeros where none was made). Hysteresis follows a piece from chunk to chunk.
void decide(const Architecture& a, const PackedRows& rows, const RoutingOptions& options,
            const std::vector<float>& decided, DomainPlan& plan) {
  const size_t m = routed_domains(a.hierarchy).size();
  const std::vector<uint8_t>& allowed = options.allowed_domains;
  plan.pi_CM.assign(rows.chunks.size() * m, 0.0f);
  plan.active_CM.assign(rows.chunks.size() * m, 0);
  std::vector<uint8_t> previous;  // active domains of the piece's last decision
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const PackedRows::Chunk& chunk = rows.chunks[c];
    if (chunk.first) previous.clear();
    float total = 0;
    for (size_t d = 0; d < m; ++d) total += decided[c * m + d];
    if (total <= 0 || is_dropped(options, chunk)) {
      float num_allowed = 0;
      for (size_t d = 0; d < m; ++d) num_allowed += allowed.empty() || allowed[d];
      for (size_t d = 0; d < m; ++d) {
        const bool is_allowed = allowed.empty() || allowed[d];
        plan.pi_CM[c * m + d] = is_allowed ? 1.0f / num_allowed : 0.0f;
        plan.active_CM[c * m + d] = is_allowed;
      }
      continue;
    }
    std::copy_n(&decided[c * m], m, &plan.pi_CM[c * m]);
    previous =
        active_domains({&decided[c * m], m}, previous, allowed, a.domain_router.margin, a.domain_router.hysteresis);
    std::copy_n(previous.begin(), m, &plan.active_CM[c * m]);
  }
}

}  // namespace

at::Tensor router_block(const Parameters& p, const std::string& prefix, const at::Tensor& x_RTD, int num_heads,
                        double eps, const Rotary& rope, const Visible& visible) {
  const AttentionWeights weights{p[prefix + "attention.query"], p[prefix + "attention.key"],
                                 p[prefix + "attention.value"], p[prefix + "attention.output"]};
  const at::Tensor x = x_RTD + attention(rms_norm(x_RTD, p[prefix + "attention_norm"], eps), weights, num_heads,
                                         num_heads, rope, visible);
  const at::Tensor h = rms_norm(x, p[prefix + "feed_forward_norm"], eps);
  return x + project(swiglu(project(h, p[prefix + "feed_forward.gate_up"])), p[prefix + "feed_forward.down"]);
}

DomainPlan plan_domains(const Architecture& a, const Parameters& p, const PackedRows& rows,
                        const at::Tensor& embedded_RTD, const RoutingOptions& options) {
  DomainPlan plan;
  const int m = static_cast<int>(routed_domains(a.hierarchy).size());
  const size_t num_chunks = rows.chunks.size(), width = static_cast<size_t>(m);
  std::vector<float> decided(num_chunks * width, 0.0f);
  const std::string& kind = a.domain_router.kind;
  if (kind == "oracle") {
    decided = label_shares(rows, m);
  } else if (kind == "random") {
    for (size_t c = 0; c < num_chunks; ++c) {
      Rng rng(mix64(options.dropout_seed), c);
      decided[c * width + rng.below(width)] = 1.0f;
    }
  } else if (kind == "encoder") {
    plan.logits_CM = encode_chunks(a, p, rows, embedded_RTD);
    const at::Tensor pi =
        at::softmax(plan.logits_CM.detach() / a.domain_router.temperature, 1).to(at::kCPU, at::kFloat).contiguous();
    const float* values = pi.data_ptr<float>();
    for (size_t c = 1; c < num_chunks; ++c) {
      if (!rows.chunks[c].first) std::copy_n(values + (c - 1) * width, width, &decided[c * width]);
    }
    const std::vector<float> shares = label_shares(rows, m);
    std::vector<float> targets(num_chunks * width, 0.0f);
    int64_t counted = 0;
    for (size_t c = 0; c + 1 < num_chunks; ++c) {
      if (rows.chunks[c + 1].first) continue;
      float total = 0;
      for (size_t d = 0; d < width; ++d) total += targets[c * width + d] = shares[(c + 1) * width + d];
      counted += total > 0;
    }
    if (counted > 0) {
      const at::Tensor target = at::from_blob(targets.data(), {static_cast<int64_t>(num_chunks), m}, at::kFloat)
                                    .to(plan.logits_CM.options(), /*non_blocking=*/false, /*copy=*/true);
      plan.loss = (target * at::log_softmax(plan.logits_CM, 1)).sum().neg() / static_cast<double>(counted);
    }
  }
  decide(a, rows, options, decided, plan);
  return plan;
}

at::Tensor eligible_components(const Architecture& a, const PackedRows& rows, const DomainPlan& plan) {
  const Hierarchy& h = a.hierarchy;
  const std::vector<int> routed = routed_domains(h), owner = owner_of_components(h);
  std::vector<int> routed_index(h.domains.size(), -1);
  for (size_t d = 0; d < routed.size(); ++d) routed_index[static_cast<size_t>(routed[d])] = static_cast<int>(d);
  const int64_t num_chunks = static_cast<int64_t>(rows.chunks.size()), n = static_cast<int64_t>(owner.size());
  at::Tensor eligible_CN = at::empty({num_chunks, n}, at::kBool);
  bool* out = eligible_CN.data_ptr<bool>();
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    for (size_t i = 0; i < owner.size(); ++i) {
      const int d = routed_index[static_cast<size_t>(owner[i])];
      *out++ = d < 0 || plan.active_CM[c * routed.size() + static_cast<size_t>(d)];
    }
  }
  return eligible_CN.to(rows.chunk_id_S.device()).index_select(0, rows.chunk_id_S);
}

ComponentChooser::ComponentChooser(const Architecture& architecture, const Parameters& parameters,
                                   const PackedRows& rows, const RoutingOptions& options)
    : architecture_(architecture), parameters_(parameters), rows_(rows), options_(options) {}

void ComponentChooser::plan(const at::Tensor& embedded_RTD, const DomainPlan& domains) {
  const Architecture& a = architecture_;
  const ComponentRouter& c = a.component_router;
  eligible_SN_ = eligible_components(a, rows_, domains);
  if (c.prior_weight != 0) {
    constexpr double kEpsilon = 0.05;
    const std::vector<int> routed = routed_domains(a.hierarchy);
    std::vector<int64_t> column;  // of each component's owner; the last column is the general domain's: no prior
    for (int owner : owner_of_components(a.hierarchy)) {
      const auto it = std::find(routed.begin(), routed.end(), owner);
      column.push_back(it - routed.begin());
    }
    const int64_t m = static_cast<int64_t>(routed.size());
    at::Tensor pi = at::tensor(domains.pi_CM, at::kFloat).view({-1, m});
    pi = at::cat({at::log(pi * (1 - kEpsilon) + kEpsilon / static_cast<double>(m)), at::zeros({pi.size(0), 1})}, 1) *
         c.prior_weight;
    log_prior_SN_ =
        pi.index_select(1, at::tensor(column, at::kLong)).to(embedded_RTD.device()).index_select(0, rows_.chunk_id_S);
  }
  if (c.kind != "planner") return;
  at::Tensor x = project(embedded_RTD, parameters_["component_router.input"]);
  const Rotary rope = rotary(rows_.positions_RT, c.width / c.num_heads, a.trunk.rope_theta, x.scalar_type());
  const Visible visible = causal(rows_.starts_RT, x);
  for (int i = 0; i < c.num_layers; ++i) {
    x = router_block(parameters_, "component_router.layers." + std::to_string(i) + ".", x, c.num_heads,
                     a.trunk.norm_eps, rope, visible);
  }
  x = rms_norm(x, parameters_["component_router.norm"], a.trunk.norm_eps).reshape({-1, c.width});
  std::vector<at::Tensor> by_domain;
  for (const Domain& domain : a.hierarchy.domains) {
    by_domain.push_back(project(x, parameters_["component_router.heads." + domain.name])
                            .view({-1, num_component_layers(a), domain.num_components}));
  }
  planned_SLN_ = at::cat(by_domain, 2);
  if (planned_SLN_.scalar_type() == at::kBFloat16) planned_SLN_ = planned_SLN_.to(at::kFloat);
}

LayerChoice ComponentChooser::choose(int layer, const at::Tensor& x_SD) const {
  const Architecture& a = architecture_;
  const int k = a.hierarchy.num_active;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  at::Tensor scores = planned_SLN_.defined() ? planned_SLN_.select(1, layer - a.trunk.num_dense_layers)
                                             : project(x_SD, parameters_[prefix + "router_gate"]);
  if (scores.scalar_type() == at::kBFloat16) scores = scores.to(at::kFloat);
  if (log_prior_SN_.defined()) scores = scores + log_prior_SN_;
  LayerChoice choice;
  if (options_.replay) {
    const Route& route = *options_.replay;
    const std::vector<int64_t> shape = {route.num_tokens, route.num_layers, route.num_active};
    TESSERA_CHECK(rows_.num_rows == 1 && rows_.num_tokens == route.num_tokens,
                  "a replayed route must be of the same text");
    const int64_t l = layer - a.trunk.num_dense_layers;
    choice.ids_SK =
        at::tensor(route.components_TLK, at::kLong).view(shape).select(1, l).contiguous().to(scores.device());
    choice.weights_SK = at::tensor(route.weights_TLK, at::kFloat)
                            .view(shape)
                            .select(1, l)
                            .contiguous()
                            .to(scores.device(), scores.scalar_type());
    return choice;
  }
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const at::Tensor barred = eligible_SN_.logical_not();
  const at::Tensor eligible_scores = scores.masked_fill(barred, minus_infinity);
  {
    const at::NoGradGuard no_grad;
    const at::Tensor selection = eligible_scores + parameters_[prefix + "selection_bias"];
    choice.ids_SK = std::get<1>(at::topk(selection, k, 1, true, true)).contiguous();
  }
  const at::Tensor log_total = at::logsumexp(eligible_scores, {1}, true);
  const at::Tensor chosen = scores.gather(1, choice.ids_SK);
  choice.weights_SK = k == 1 ? at::exp(chosen - log_total) : at::softmax(chosen, 1);
  choice.z_loss = log_total.square().mean();
  return choice;
}

}  // namespace tessera
