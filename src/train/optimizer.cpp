#include "train/optimizer.h"

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

AdamW::AdamW(const Parameters& parameters, const OptimizerConfig& config) : config_(config) {
  groups_ = {{config.weight_decay, {}, {}, {}, {}, {}}, {0.0, {}, {}, {}, {}, {}}};
  for (const std::string& name : parameters.learnt_names()) {
    const at::Tensor& parameter = parameters[name];
    Group& group = groups_[parameter.dim() >= 2 ? 0 : 1];
    group.names.push_back(name);
    group.parameters.push_back(parameter);
    group.m.push_back(at::zeros_like(parameter).requires_grad_(false));
    group.v.push_back(at::zeros_like(parameter).requires_grad_(false));
    group.steps.push_back(at::zeros({}, parameter.options().dtype(at::kFloat)).requires_grad_(false));
  }
}

double AdamW::clip_gradients() {
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

void AdamW::step(double lr) {
  const at::NoGradGuard no_grad;
  ++num_steps_;
  for (Group& group : groups_) {
    if (group.parameters.empty()) continue;
    std::vector<at::Tensor> grads;
    for (at::Tensor& parameter : group.parameters) grads.push_back(parameter.grad());
    for (at::Tensor& steps : group.steps) steps.fill_(static_cast<double>(num_steps_));
    at::_fused_adamw_(group.parameters, grads, group.m, group.v, {}, group.steps, lr, config_.beta1, config_.beta2,
                      group.weight_decay, config_.eps, /*amsgrad=*/false, /*maximize=*/false);
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad() = at::Tensor();
  }
}

std::map<std::string, at::Tensor> AdamW::state() const {
  std::map<std::string, at::Tensor> state;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      state[group.names[i] + ".m"] = group.m[i];
      state[group.names[i] + ".v"] = group.v[i];
    }
  }
  return state;
}

void AdamW::load_state(const SafetensorsFile& file, int64_t num_steps) {
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      for (auto [suffix, tensor] : {std::pair{".m", &group.m[i]}, std::pair{".v", &group.v[i]}}) {
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
