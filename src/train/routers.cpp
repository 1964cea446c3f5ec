// What both routers are built of, and level 2.
#include "train/routers.h"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "base/error.h"

namespace tessera {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Group-limited top-K (core/hierarchy.h): minus infinity for the routed domains that are not among the token's best.
at::Tensor limit_groups(const Architecture& a, const at::Tensor& selection_SN) {
  std::vector<at::Tensor> totals;
  std::vector<int64_t> group_of;  // of each component: its routed domain, or the last column, which is always allowed
  int64_t begin = 0, group = 0;
  const int64_t num_routed = static_cast<int64_t>(routed_domains(a.hierarchy).size());
  for (const Domain& d : a.hierarchy.domains) {
    group_of.insert(group_of.end(), static_cast<size_t>(d.num_components), d.always ? num_routed : group);
    if (!d.always) {
      const int64_t counted = std::min(a.hierarchy.num_active, d.num_components);
      totals.push_back(
          std::get<0>(selection_SN.narrow(1, begin, d.num_components).topk(counted, 1)).sum(1, /*keepdim=*/true));
      ++group;
    }
    begin += d.num_components;
  }
  const int64_t kept = std::min<int64_t>(a.component_router.max_groups, num_routed);
  const at::Tensor best = std::get<1>(at::cat(totals, 1).topk(kept, 1));
  at::Tensor barred = at::ones({selection_SN.size(0), num_routed + 1}, selection_SN.options().dtype(at::kBool));
  barred.scatter_(1, best, false).select(1, num_routed).fill_(false);
  return selection_SN.masked_fill(barred.index_select(1, at::tensor(group_of, at::kLong).to(selection_SN.device())),
                                  kMinusInfinity);
}

// Ids of the components that level 1 makes eligible in each chunk, in order.
std::vector<std::vector<int32_t>> eligible_by_chunk(const Architecture& a, const DomainPlan& plan, size_t num_chunks) {
  const Hierarchy& h = a.hierarchy;
  const size_t num_routed = routed_domains(h).size();
  std::vector<std::vector<int32_t>> eligible(num_chunks);
  for (size_t c = 0; c < num_chunks; ++c) {
    int32_t id = 0;
    size_t routed = 0;
    for (const Domain& domain : h.domains) {
      const bool active = domain.always || plan.active_CM[c * num_routed + routed] != 0;
      routed += !domain.always;
      for (int i = 0; i < domain.num_components; ++i, ++id) {
        if (active) eligible[c].push_back(id);
      }
    }
  }
  return eligible;
}

}  // namespace

Rotary router_rotary(const PackedRows& rows, int head_dim, double theta, at::ScalarType dtype) {
  // The angles are the same for every text, and cost as much as a narrow router's products: a table of them is kept.
  static std::mutex mutex;
  static std::map<std::tuple<int, double, at::ScalarType>, Rotary> tables;
  Rotary table;
  {
    const std::lock_guard lock(mutex);
    Rotary& kept = tables[{head_dim, theta, dtype}];
    if (!kept.cos_RTh.defined() || kept.cos_RTh.size(1) < rows.num_tokens) {
      const at::NoGradGuard no_grad;
      kept = rotary(at::arange(rows.num_tokens, at::kLong).unsqueeze(0), head_dim, theta, dtype);
    }
    table = kept;
  }
  const at::Tensor index = rows.positions_RT.reshape({-1});
  const auto look_up = [&](const at::Tensor& values) {
    return values[0].to(index.device()).index_select(0, index).view({rows.num_rows, rows.num_tokens, -1});
  };
  return {look_up(table.cos_RTh), look_up(table.sin_RTh)};
}

at::Tensor router_block(const Parameters& p, const std::string& prefix, const at::Tensor& x_RTD, int num_heads,
                        double eps, const Rotary& rope, const Visible& visible) {
  const AttentionWeights weights{p[prefix + "attention.query"], p[prefix + "attention.key"],
                                 p[prefix + "attention.value"], p[prefix + "attention.output"]};
  const at::Tensor x = x_RTD + attention(rms_norm(x_RTD, p[prefix + "attention_norm"], eps), weights, num_heads,
                                         num_heads, rope, visible);
  const at::Tensor h = rms_norm(x, p[prefix + "feed_forward_norm"], eps);
  return x + project(swiglu(project(h, p[prefix + "feed_forward.gate_up"])), p[prefix + "feed_forward.down"]);
}

ComponentChooser::ComponentChooser(const Architecture& architecture, const Parameters& parameters,
                                   const PackedRows& rows, const RoutingOptions& options)
    : architecture_(architecture), parameters_(parameters), rows_(rows), options_(options) {}

void ComponentChooser::plan(const at::Tensor& x_RTD, const DomainPlan& domains) {
  const Architecture& a = architecture_;
  const ComponentRouter& c = a.component_router;
  eligible_ = eligible_by_chunk(a, domains, rows_.chunks.size());
  chunk_S_.resize(static_cast<size_t>(rows_.num_rows * rows_.num_tokens));
  for (size_t i = 0; i < rows_.chunks.size(); ++i) {
    const PackedRows::Chunk& chunk = rows_.chunks[i];
    std::fill(chunk_S_.begin() + chunk.row * rows_.num_tokens + chunk.begin,
              chunk_S_.begin() + chunk.row * rows_.num_tokens + chunk.end, static_cast<int32_t>(i));
  }
  if (c.prior_weight != 0) log_prior_SN_ = log_prior(domains).to(x_RTD.device());
  if (options_.replay) return;
  active_CM_ = domains.active_CM;
  if (c.kind == "gate" || c.kind == "trunk") return;
  at::Tensor x = project(x_RTD, parameters_["component_router.input"]);
  const Rotary rope = router_rotary(rows_, c.width / c.num_heads, a.trunk.rope_theta, x.scalar_type());
  const Visible visible = causal(rows_.starts_RT, x);
  for (int i = 0; i < c.num_layers; ++i) {
    x = router_block(parameters_, "component_router.layers." + std::to_string(i) + ".", x, c.num_heads,
                     a.trunk.norm_eps, rope, visible);
  }
  x = rms_norm(x, parameters_["component_router.norm"], a.trunk.norm_eps).reshape({-1, c.width});
  planned_SLN_ = head_scores(x);
  if (c.kind == "planner") planned_ = select(planned_SLN_, 0);
}

// [S, N] bool: not eligible.
const at::Tensor& ComponentChooser::barred() {
  if (barred_SN_.defined()) return barred_SN_;
  const int64_t num_chunks = static_cast<int64_t>(rows_.chunks.size()), n = num_components(architecture_.hierarchy);
  at::Tensor barred_CN = at::ones({num_chunks, n}, at::kBool);
  for (size_t i = 0; i < eligible_.size(); ++i) {
    for (int32_t id : eligible_[i]) barred_CN.data_ptr<bool>()[static_cast<int64_t>(i) * n + id] = false;
  }
  return barred_SN_ = barred_CN.to(rows_.chunk_id_S.device()).index_select(0, rows_.chunk_id_S);
}

at::Tensor ComponentChooser::log_prior(const DomainPlan& domains) const {
  constexpr double kEpsilon = 0.05;
  const Hierarchy& h = architecture_.hierarchy;
  const std::vector<int> routed = routed_domains(h);
  std::vector<int64_t> column;  // of each component's owner; the last column is the general domain's: no prior
  for (int owner : owner_of_components(h)) {
    column.push_back(std::find(routed.begin(), routed.end(), owner) - routed.begin());
  }
  const int64_t m = static_cast<int64_t>(routed.size());
  at::Tensor pi = at::tensor(domains.pi_CM, at::kFloat).view({-1, m});
  pi = at::cat({at::log(pi * (1 - kEpsilon) + kEpsilon / static_cast<double>(m)), at::zeros({pi.size(0), 1})}, 1) *
       architecture_.component_router.prior_weight;
  return pi.index_select(1, at::tensor(column, at::kLong)).index_select(0, rows_.chunk_id_S.to(at::kCPU));
}

// All heads in one product: five narrow ones would each gather their tokens and give x a gradient of its own. A head
// that no token of the batch may choose from is not read.
at::Tensor ComponentChooser::head_scores(const at::Tensor& x_SD) const {
  const Architecture& a = architecture_;
  const size_t num_routed = routed_domains(a.hierarchy).size();
  const auto somewhere_active = [&](size_t routed) {
    for (size_t i = routed; i < active_CM_.size(); i += num_routed) {
      if (active_CM_[i]) return true;
    }
    return false;
  };
  const int64_t layers = num_component_layers(a), width = x_SD.size(1);
  std::vector<at::Tensor> heads_LnD;  // by domain
  size_t routed = 0;
  for (const Domain& domain : a.hierarchy.domains) {
    const std::vector<int64_t> shape = {layers, domain.num_components, width};
    const bool read = domain.always || somewhere_active(routed);
    routed += !domain.always;
    heads_LnD.push_back(read ? parameters_["component_router.heads." + domain.name].view(shape)
                             : at::zeros(shape, x_SD.options()));
  }
  const at::Tensor heads = at::cat(heads_LnD, 1).view({-1, width});
  const at::Tensor scores_SLN = project(x_SD, heads).view({x_SD.size(0), layers, -1});
  return scores_SLN.scalar_type() == at::kDouble ? scores_SLN : scores_SLN.to(at::kFloat);
}

// From the scores [S, L', N] of L' layers, of which the first is number `first` of the component layers.
ComponentChoice ComponentChooser::select(at::Tensor scores_SLN, int64_t first) {
  const int k = architecture_.hierarchy.num_active;
  if (log_prior_SN_.defined()) scores_SLN = scores_SLN + log_prior_SN_.unsqueeze(1);
  std::vector<at::Tensor> biases;
  for (int64_t l = 0; l < scores_SLN.size(1); ++l) {
    biases.push_back(
        parameters_["layers." + std::to_string(first + l + architecture_.trunk.num_dense_layers) + ".selection_bias"]);
  }
  const at::Tensor bias_LN = at::stack(biases).to(scores_SLN.scalar_type());
  const bool limited = architecture_.component_router.max_groups > 0;
  if (scores_SLN.is_cpu() && !limited) return choose_components_cpu(scores_SLN, bias_LN, chunk_S_, eligible_, k);

  const at::Tensor eligible_scores = scores_SLN.masked_fill(barred().unsqueeze(1), kMinusInfinity);
  ComponentChoice choice;
  {
    const at::NoGradGuard no_grad;
    at::Tensor selection_SLN = eligible_scores + bias_LN;
    if (limited) selection_SLN = limit_groups(architecture_, selection_SLN.flatten(0, 1)).view_as(selection_SLN);
    choice.ids_SLK = std::get<1>(at::topk(selection_SLN, k, -1, true, true)).contiguous();
  }
  const at::Tensor chosen = scores_SLN.gather(2, choice.ids_SLK);
  const at::Tensor log_total_SL = at::logsumexp(eligible_scores, {2});
  choice.weights_SLK = k == 1 ? at::exp(chosen - log_total_SL.unsqueeze(2)) : at::softmax(chosen, 2);
  if (scores_SLN.requires_grad()) choice.z_loss_L = log_total_SL.square().mean(0);
  return choice;
}

LayerChoice ComponentChooser::choose(int layer, at::Tensor x_SD) {
  const Architecture& a = architecture_;
  const std::string& kind = a.component_router.kind;
  const int64_t l = layer - a.trunk.num_dense_layers;
  if (options_.replay) return replayed(l, x_SD);
  if (planned_.ids_SLK.defined()) return layer_of(planned_, l);
  x_SD = x_SD.to(parameters_["embedding"].scalar_type());  // routers stay in the weights' precision (model.cpp)
  if (kind == "trunk") {
    planned_ = select(head_scores(x_SD), 0);
    return layer_of(planned_, l);
  }
  at::Tensor scores = project(x_SD, parameters_["layers." + std::to_string(layer) + ".router_gate"]);
  if (scores.scalar_type() != at::kDouble) scores = scores.to(at::kFloat);
  if (planned_SLN_.defined()) scores = scores + planned_SLN_.select(1, l);
  return layer_of(select(scores.unsqueeze(1), l), 0);
}

LayerChoice ComponentChooser::replayed(int64_t layer, const at::Tensor& x_SD) const {
  const Route& route = *options_.replay;
  const std::vector<int64_t> shape = {route.num_tokens, route.num_layers, route.num_active};
  TESSERA_CHECK(rows_.num_rows == 1 && rows_.num_tokens == route.num_tokens,
                "a replayed route must be of the same text");
  const at::ScalarType dtype = x_SD.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  LayerChoice choice;
  choice.ids_SK =
      at::tensor(route.components_TLK, at::kLong).view(shape).select(1, layer).contiguous().to(x_SD.device());
  choice.weights_SK =
      at::tensor(route.weights_TLK, at::kFloat).view(shape).select(1, layer).contiguous().to(x_SD.device(), dtype);
  return choice;
}

LayerChoice ComponentChooser::layer_of(const ComponentChoice& choice, int64_t l) {
  LayerChoice out{choice.ids_SLK.select(1, l).contiguous(), choice.weights_SLK.select(1, l), {}};
  if (choice.z_loss_L.defined()) out.z_loss = choice.z_loss_L.select(0, l);
  return out;
}

}  // namespace tessera
