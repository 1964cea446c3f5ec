// Level 1: the block-causal encoder and the decisions made from it.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "train/routers.h"

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
at::Tensor encode_chunks(const Architecture& a, const Parameters& p, const PackedRows& rows, at::Tensor x) {
  const DomainRouter& d = a.domain_router;
  const double eps = a.trunk.norm_eps;
  const Rotary rope = router_rotary(rows, d.width / d.num_heads, a.trunk.rope_theta, x.scalar_type());
  const Visible visible = block_causal(rows.starts_RT, rows.chunk_ends_RT, d.window_tokens / d.patch_tokens, x);
  for (int i = 0; i < d.num_layers; ++i)
    x = router_block(p, "domain_router.layers." + std::to_string(i) + ".", x, d.num_heads, eps, rope, visible);
  const int64_t num_chunks = static_cast<int64_t>(rows.chunks.size());
  std::vector<double> inverse;
  for (const auto& chunk : rows.chunks) inverse.push_back(1.0 / static_cast<double>(chunk.end - chunk.begin));
  const at::Tensor scale = at::tensor(inverse, at::kDouble).to(x.device(), x.scalar_type()).unsqueeze(1);
  const at::Tensor pooled =
      at::zeros({num_chunks + 1, x.size(-1)}, x.options())  // the last row takes what fills up short rows of patches
          .index_add(0, rows.chunk_id_S, x.reshape({-1, x.size(-1)}))
          .narrow(0, 0, num_chunks) *
      scale;
  const at::Tensor logits = project(rms_norm(pooled, p["domain_router.norm"], eps), p["domain_router.head"]);
  return logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
}

// Level 1's logits [C, M] of rows whose tokens have these embeddings [R, T, D] or, of its own table, [R, T, width].
at::Tensor level_one_logits(const Architecture& a, const Parameters& p, const PackedRows& rows, at::Tensor x_RTD) {
  const DomainRouter& d = a.domain_router;
  const auto input = [&](const at::Tensor& x) { return d.own_embedding ? x : project(x, p["domain_router.input"]); };
  if (d.patch_tokens == 1) return encode_chunks(a, p, rows, input(x_RTD));
  const Patches patches = patches_of(rows, d.patch_tokens);
  const int64_t width = x_RTD.size(-1);
  const at::Tensor sum = at::zeros({patches.rows.num_rows * patches.rows.num_tokens, width}, x_RTD.options())
                             .index_add(0, patches.patch_id_S, x_RTD.reshape({-1, width}));
  // A shorter patch ends a piece; nothing is decided from its chunk.
  const at::Tensor mean = sum.view({patches.rows.num_rows, patches.rows.num_tokens, width}) / d.patch_tokens;
  return encode_chunks(a, p, patches.rows, input(mean));
}

// Cross-entropy of level 1's logits at each chunk's end against the domains' shares of the chunk after it, mean over
// the chunks that have a labelled next one; undefined where none has. Balanced: every domain of the batch counts alike.
at::Tensor next_chunk_loss(const PackedRows& rows, const at::Tensor& logits_CM, int num_domains, bool balanced) {
  const size_t num_chunks = rows.chunks.size(), m = static_cast<size_t>(num_domains);
  const std::vector<float> shares = label_shares(rows, num_domains);
  std::vector<float> targets(num_chunks * m, 0.0f), of_domain(m, 0.0f);
  int64_t counted = 0;
  for (size_t c = 0; c + 1 < num_chunks; ++c) {
    if (rows.chunks[c + 1].first) continue;
    float total = 0;
    for (size_t d = 0; d < m; ++d) {
      total += targets[c * m + d] = shares[(c + 1) * m + d];
      of_domain[d] += shares[(c + 1) * m + d];
    }
    counted += total > 0;
  }
  if (counted == 0) return {};
  const float num_met =
      static_cast<float>(std::count_if(of_domain.begin(), of_domain.end(), [](float n) { return n > 0; }));
  for (size_t i = 0; balanced && i < targets.size(); ++i) {
    if (targets[i] > 0) targets[i] *= static_cast<float>(counted) / (num_met * of_domain[i % m]);
  }
  const at::Tensor target = at::from_blob(targets.data(), {static_cast<int64_t>(num_chunks), num_domains}, at::kFloat)
                                .to(logits_CM.options(), /*non_blocking=*/false, /*copy=*/true);
  return (target * at::log_softmax(logits_CM, 1)).sum().neg() / static_cast<double>(counted);
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
  const std::vector<float> undecided = undecided_pi(a, allowed);
  const std::vector<uint8_t> added = added_domains(a.hierarchy);
  std::vector<uint8_t> previous;  // active domains of the piece's last decision
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const PackedRows::Chunk& chunk = rows.chunks[c];
    if (chunk.first) previous.clear();
    const std::span<float> pi(&plan.pi_CM[c * m], m);
    std::copy_n(&decided[c * m], m, pi.begin());
    if (std::accumulate(pi.begin(), pi.end(), 0.0f) <= 0 || is_dropped(options, chunk)) {
      std::copy(undecided.begin(), undecided.end(), pi.begin());
      for (size_t d = 0; d < m; ++d) plan.active_CM[c * m + d] = pi[d] > 0;
      continue;
    }
    if (a.domain_router.kind != "encoder") restrict_to_allowed(pi, allowed);
    previous = active_domains(pi, previous, allowed, a.domain_router.margin, a.domain_router.hysteresis, added);
    std::copy_n(previous.begin(), m, &plan.active_CM[c * m]);
  }
}

}  // namespace

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
    plan.logits_CM =
        level_one_logits(a, p, rows,
                         a.domain_router.own_embedding ? at::embedding(p["domain_router.embedding"], rows.tokens_RT)
                                                       : embedded_RTD.detach());
    const at::Tensor logits = plan.logits_CM.detach().to(at::kCPU, at::kFloat).contiguous();
    const float* values = logits.data_ptr<float>();
    for (size_t c = 1; c < num_chunks; ++c) {
      if (rows.chunks[c].first) continue;
      std::copy_n(values + (c - 1) * width, width, &decided[c * width]);
      logits_to_pi(std::span(decided).subspan(c * width, width), a.domain_router, options.allowed_domains);
    }
    plan.loss = next_chunk_loss(rows, plan.logits_CM, m, options.balances_labels);
  }
  decide(a, rows, options, decided, plan);
  return plan;
}

void append_decisions(const DomainPlan& plan, const PackedRows& rows, int num_domains,
                      std::vector<TextDecisions>& texts) {
  const size_t m = static_cast<size_t>(num_domains);
  const std::vector<float> shares = label_shares(rows, num_domains);
  const at::Tensor logits = plan.logits_CM.detach().to(at::kCPU, at::kFloat).contiguous();
  const float* values = logits.const_data_ptr<float>();
  TextDecisions text;
  const auto flush = [&] {
    if (!text.tokens_C.empty()) texts.push_back(std::move(text));
    text = {};
  };
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const PackedRows::Chunk& chunk = rows.chunks[c];
    if (chunk.first) {
      flush();
      continue;
    }
    int32_t labelled = 0;
    for (int64_t t = chunk.begin; t < chunk.end; ++t)
      labelled += rows.labels_RT[static_cast<size_t>(chunk.row * rows.num_tokens + t)] >= 0;
    if (labelled == 0) continue;
    text.tokens_C.push_back(labelled);
    text.logits_CM.insert(text.logits_CM.end(), values + (c - 1) * m, values + c * m);
    text.targets_CM.insert(text.targets_CM.end(), &shares[c * m], &shares[c * m] + m);
  }
  flush();
}

}  // namespace tessera
