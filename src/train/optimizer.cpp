#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace tessera {

double learning_rate(const OptimizerConfig& c, int64_t step, int64_t num_steps) {
  if (step < c.warmup_steps) return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup_steps);
  const double lowest = c.lr * c.min_lr_share;
  const double decay_steps = c.schedule == "wsd" ? c.decay_share * static_cast<double>(num_steps)
                                                 : static_cast<double>(num_steps - c.warmup_steps);
  const double left =
      static_cast<double>(num_steps - step) / std::max(1.0, decay_steps);  // 1 at the start of the decay, 0 at its end
  if (left >= 1) return c.lr;
  const double share = c.schedule == "wsd" ? left : 0.5 * (1 + std::cos(std::numbers::pi * (1 - left)));
  return lowest + (c.lr - lowest) * share;
}

namespace {

bool is_table(const std::string& name) { return name == "embedding" || name == "head"; }  // a row a token

// What gives scores row by row (tables, router heads and gates) has no business being orthogonal.
bool is_inner_matrix(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() >= 2 && !is_table(name) && name.find(".head") == std::string::npos &&
         !name.ends_with("router_gate");
}

constexpr double kMuonMomentum = 0.95;

}  // namespace

at::Tensor orthogonalised(const at::Tensor& matrices) {
  const bool tall = matrices.size(-2) > matrices.size(-1);
  at::Tensor x = tall ? matrices.transpose(-2, -1) : matrices;
  x = x / (at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, true) + 1e-7);
  for (int i = 0; i < 5; ++i) {  // the quintic of Jordan et al.
    const at::Tensor gram = at::matmul(x, x.transpose(-2, -1));
    const at::Tensor polynomial = at::matmul(gram, gram).mul_(2.0315).add_(gram, -4.7750);
    x = at::matmul(polynomial, x).add_(x, 3.4445);
  }
  return tall ? x.transpose(-2, -1) : x;
}

Optimizer::Optimizer(const Parameters& parameters, const OptimizerConfig& config) : config_(config) {
  enum { kMatrices, kVectors, kTables, kMuon };
  groups_ = {{false, config.weight_decay, 1},
             {false, 0, 1},
             {false, config.weight_decay, config.embedding_lr_scale},
             {true, config.weight_decay, 1}};
  for (const std::string& name : parameters.learnt_names()) {
    const at::Tensor& parameter = parameters[name];
    if (!parameter.requires_grad()) continue;  // kept as it is: a distilled level 1, what --add-domain adds to
    const bool muon = config.kind == "muon" && is_inner_matrix(name, parameter);
    Group& group = groups_[muon ? kMuon : parameter.dim() < 2 ? kVectors : is_table(name) ? kTables : kMatrices];
    group.names.push_back(name);
    group.parameters.push_back(parameter);
    group.m.push_back(at::zeros_like(parameter).requires_grad_(false));
    if (muon) continue;
    group.v.push_back(at::zeros_like(parameter).requires_grad_(false));
    group.steps.push_back(at::zeros({}, parameter.options().dtype(at::kFloat)).requires_grad_(false));
  }
}

bool Optimizer::updates(const std::string& name) const {
  return std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) {
    return std::find(group.names.begin(), group.names.end(), name) != group.names.end();
  });
}

double Optimizer::clip_gradients() {
  std::vector<at::Tensor> grads;
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) {
      if (!parameter.grad().defined()) parameter.mutable_grad() = at::zeros_like(parameter);
      grads.push_back(parameter.grad());
    }
  }
  double sum = 0;
  for (const at::Tensor& norm : at::_foreach_norm(grads)) sum += std::pow(norm.item<double>(), 2);
  const double norm = std::sqrt(sum);
  if (config_.clip_norm > 0 && norm > config_.clip_norm) at::_foreach_mul_(grads, config_.clip_norm / norm);
  return norm;
}

void Optimizer::adamw_step(Group& group, double lr) {
  std::vector<at::Tensor> grads;
  for (at::Tensor& parameter : group.parameters) grads.push_back(parameter.grad());
  for (at::Tensor& steps : group.steps) steps.fill_(static_cast<double>(num_steps_));
  at::_fused_adamw_(group.parameters, grads, group.m, group.v, {}, group.steps, lr, config_.beta1, config_.beta2,
                    group.weight_decay, config_.eps, /*amsgrad=*/false, /*maximize=*/false);
}

void Optimizer::muon_step(Group& group, double lr) {
  for (size_t i = 0; i < group.parameters.size(); ++i) {
    at::Tensor& parameter = group.parameters[i];
    const at::Tensor& grad = parameter.grad();
    at::Tensor& momentum = group.m[i];
    momentum.mul_(kMuonMomentum).add_(grad);
    const at::Tensor nesterov = grad.add(momentum, kMuonMomentum);
    // A gate and an up matrix that are stored as one stack are two matrices.
    const int64_t blocks = group.names[i].ends_with("gate_up") ? 2 : 1;
    const at::Tensor update = orthogonalised(nesterov.unflatten(-2, {blocks, -1})).flatten(-3, -2);
    const double scale =
        0.2 * std::sqrt(static_cast<double>(std::max(parameter.size(-2) / blocks, parameter.size(-1))));
    parameter.mul_(1 - lr * group.weight_decay).add_(update, -lr * scale);
  }
}

void Optimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  ++num_steps_;
  for (Group& group : groups_) {
    if (group.parameters.empty()) continue;
    group.muon ? muon_step(group, lr) : adamw_step(group, lr * group.lr_scale);
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad() = at::Tensor();
  }
}

std::map<std::string, at::Tensor> Optimizer::state() const {
  std::map<std::string, at::Tensor> state;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      state[group.names[i] + ".m"] = group.m[i];
      if (!group.muon) state[group.names[i] + ".v"] = group.v[i];
    }
  }
  return state;
}

void Optimizer::load_state(const SafetensorsFile& file, int64_t num_steps) {
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      std::vector<std::pair<const char*, at::Tensor*>> moments = {{".m", &group.m[i]}};
      if (!group.muon) moments.push_back({".v", &group.v[i]});
      for (auto [suffix, tensor] : moments) {
        const TensorInfo& info = file.at(group.names[i] + suffix);
        const at::Tensor value = tensor_from_file(file, info);
        if (value.sizes() != tensor->sizes())
          throw Error(ErrorCode::kData, file.path().string() + ": tensor '" + info.name + "' has another shape");
        tensor->copy_(value);
      }
    }
  }
  num_steps_ = num_steps;
}

}  // namespace tessera
