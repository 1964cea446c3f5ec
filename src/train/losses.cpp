#include "train/losses.h"

#include "train/blocks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr int64_t kBlockTokens = 512;  // 8 MB of logits at V = 4,096: stays in a cache

at::ScalarType loss_dtype(const at::Tensor& hidden) {
  return hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static Variable forward(AutogradContext* context, const Variable& hidden_SD, const Variable& head_VD,
                          const Variable& targets_S) {
    const bool differentiate = hidden_SD.requires_grad() || head_VD.requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor head = head_VD.to(hidden_SD.scalar_type());
    at::Tensor loss = at::zeros({}, hidden_SD.options().dtype(loss_dtype(hidden_SD)));
    at::Tensor grad_hidden, grad_head;
    if (differentiate) {
      grad_hidden = at::empty_like(hidden_SD);
      grad_head = at::zeros_like(head_VD);
    }
    for (int64_t begin = 0; begin < hidden_SD.size(0); begin += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, hidden_SD.size(0) - begin);
      const at::Tensor hidden = hidden_SD.narrow(0, begin, count), target = targets_S.narrow(0, begin, count);
      const at::Tensor counted = target.ge(0), index = target.clamp_min(0).unsqueeze(1);
      const at::Tensor log_probs = at::log_softmax(at::mm(hidden, head.t()), 1, loss_dtype(hidden_SD));
      loss.sub_(log_probs.gather(1, index).squeeze(1).mul(counted).sum());
      if (!differentiate) continue;
      at::Tensor grad_logits = at::exp(log_probs);
      grad_logits.scatter_add_(1, index, grad_logits.new_full({count, 1}, -1.0));
      grad_logits = grad_logits.mul_(counted.unsqueeze(1)).to(hidden.scalar_type());
      at::Tensor slice = grad_hidden.narrow(0, begin, count);
      at::mm_out(slice, grad_logits, head);
      if (grad_head.scalar_type() == grad_logits.scalar_type()) {
        grad_head.addmm_(grad_logits.t(), hidden);
      } else {
        grad_head.add_(at::mm(grad_logits.t(), hidden));
      }
    }
    if (differentiate) context->save_for_backward({grad_hidden, grad_head});
    return loss;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {saved[0] * grads[0].to(saved[0].scalar_type()), saved[1] * grads[0].to(saved[1].scalar_type()), {}};
  }
};

}  // namespace

at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden_SD, const at::Tensor& head_VD,
                                    const at::Tensor& targets_S) {
  return LinearCrossEntropy::apply(hidden_SD, head_VD, targets_S);
}

at::Tensor target_log_probs(const at::Tensor& hidden_SD, const at::Tensor& head_VD, const at::Tensor& targets_S) {
  const at::NoGradGuard no_grad;
  const at::Tensor head = head_VD.to(hidden_SD.scalar_type());
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < hidden_SD.size(0); begin += kBlockTokens) {
    const int64_t count = std::min(kBlockTokens, hidden_SD.size(0) - begin);
    const at::Tensor target = targets_S.narrow(0, begin, count);
    const at::Tensor log_probs =
        at::log_softmax(at::mm(hidden_SD.narrow(0, begin, count), head.t()), 1, loss_dtype(hidden_SD));
    parts.push_back(log_probs.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1).mul_(target.ge(0)).to(at::kFloat));
  }
  return at::cat(parts);
}

}  // namespace tessera
