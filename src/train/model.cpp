#include "train/model.h"

#include "train/blocks.h"
#include "train/component_layer.h"

namespace tessera {

at::Tensor Model::feed_forward(int layer, const at::Tensor& x_RTD, ComponentChooser& chooser, Forward& out) const {
  const Parameters& p = parameters_;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  if (!has_components(architecture_, layer)) {
    return project(swiglu(project(x_RTD, p[prefix + "feed_forward.gate_up"])), p[prefix + "feed_forward.down"]);
  }
  const Hierarchy& h = architecture_.hierarchy;
  const at::Tensor x_SD = x_RTD.reshape({-1, x_RTD.size(-1)});
  LayerChoice choice = chooser.choose(layer, x_SD);
  ComponentWeights weights;
  if (h.num_banks > 0) weights.bank_gate_up = p[prefix + "banks.gate_up"];
  if (h.unique_width > 0) weights.component_gate_up = p[prefix + "components.gate_up"];
  weights.component_down = p[prefix + "components.down"];
  for (int c = 0; c < num_components(h); ++c) weights.bank_of.push_back(bank_of(h, c));
  at::Tensor y_SD = component_layer(x_SD, choice.ids_SK, choice.weights_SK, weights);
  if (h.always_on_width > 0)
    y_SD = y_SD + project(swiglu(project(x_SD, p[prefix + "always_on.gate_up"])), p[prefix + "always_on.down"]);
  out.choices.push_back(std::move(choice));
  return y_SD.view_as(x_RTD);
}

Forward Model::forward(const PackedRows& rows, const RoutingOptions& options) const {
  const Parameters& p = parameters_;
  const Trunk& t = architecture_.trunk;
  Forward out;
  // The routers stay in the weights' precision under bf16 (selective precision: Fedus et al. 2022, arXiv 2101.03961).
  const at::Tensor embedded_RTD = at::embedding(p["embedding"], rows.tokens_RT);
  at::Tensor x = embedded_RTD;
  if (t.previous_token) {
    const at::Tensor is_first_RT1 = (rows.positions_RT == 0).unsqueeze(-1);  // of its piece
    x = x + project(embedded_RTD.roll({1}, {1}).masked_fill(is_first_RT1, 0), p["previous_token"]);
  }
  ComponentChooser chooser(architecture_, p, rows, options);
  if (num_component_layers(architecture_) > 0) {
    out.domains = plan_domains(architecture_, p, rows, embedded_RTD, options);
    chooser.plan(x, out.domains);
  }
  x = x.to(compute_dtype_);
  const Rotary rope = rotary(rows.positions_RT, head_dim(t), t.rope_theta, compute_dtype_, t.rope_divisors);
  const Visible visible = causal(rows.starts_RT, x);
  for (int layer = 0; layer < t.num_layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const AttentionWeights weights{p[prefix + "attention.query"], p[prefix + "attention.key"],
                                   p[prefix + "attention.value"], p[prefix + "attention.output"]};
    x = x + attention(rms_norm(x, p[prefix + "attention_norm"], t.norm_eps), weights, t.num_heads, t.num_kv_heads, rope,
                      visible);
    x = x + feed_forward(layer, rms_norm(x, p[prefix + "feed_forward_norm"], t.norm_eps), chooser, out);
  }
  out.hidden_RTD = rms_norm(x, p["final_norm"], t.norm_eps);
  return out;
}

Route route_of_row(const Architecture& a, const PackedRows& rows, const Forward& forward, int64_t row,
                   int64_t num_tokens) {
  Route route;
  route.num_tokens = static_cast<int>(num_tokens);
  route.num_layers = static_cast<int>(forward.choices.size());
  if (route.num_layers == 0) return route;
  route.num_domains = static_cast<int>(routed_domains(a.hierarchy).size());
  route.num_active = a.hierarchy.num_active;
  const size_t m = static_cast<size_t>(route.num_domains);
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const PackedRows::Chunk& chunk = rows.chunks[c];
    if (chunk.row != row || chunk.begin >= num_tokens) continue;
    route.chunk_starts_C.push_back(static_cast<int32_t>(chunk.begin));
    route.pi_CM.insert(route.pi_CM.end(), &forward.domains.pi_CM[c * m], &forward.domains.pi_CM[c * m] + m);
    route.active_CM.insert(route.active_CM.end(), &forward.domains.active_CM[c * m],
                           &forward.domains.active_CM[c * m] + m);
  }
  std::vector<at::Tensor> ids, weights;
  for (const LayerChoice& choice : forward.choices) {
    ids.push_back(choice.ids_SK.narrow(0, row * rows.num_tokens, num_tokens));
    weights.push_back(choice.weights_SK.detach().narrow(0, row * rows.num_tokens, num_tokens));
  }
  const at::Tensor ids_TLK = at::stack(ids, 1).to(at::kCPU, at::kInt).contiguous();
  const at::Tensor weights_TLK = at::stack(weights, 1).to(at::kCPU, at::kFloat).contiguous();
  route.components_TLK.assign(ids_TLK.data_ptr<int32_t>(), ids_TLK.data_ptr<int32_t>() + ids_TLK.numel());
  route.weights_TLK.assign(weights_TLK.data_ptr<float>(), weights_TLK.data_ptr<float>() + weights_TLK.numel());
  return route;
}

at::Tensor add_router_losses(at::Tensor loss, const Forward& forward, const LossConfig& weights, double share) {
  if (forward.domains.loss.defined()) loss = loss + forward.domains.loss * (weights.domain_weight * share);
  for (const LayerChoice& choice : forward.choices) {
    if (!choice.z_loss.defined()) continue;  // only an added domain is learnt, and no text here is of it
    loss = loss + choice.z_loss * (weights.z_loss * share / static_cast<double>(forward.choices.size()));
  }
  return loss;
}

}  // namespace tessera
