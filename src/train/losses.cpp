#include "train/losses.h"

#include "base/error.h"
#include "kernels/elementwise.h"
#include "train/blocks.h"
#include "train/products.h"
#include "train/section_timer.h"
#include "train/tasks.h"

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

// On the CPU kernels: a block's rows are shared out over the threads for the logits and their gradient, then the head's
// rows for its gradient. Only a block of logits ever exists.
struct LinearCrossEntropyCpu : torch::autograd::Function<LinearCrossEntropyCpu> {
  static Variable forward(AutogradContext* context, const Variable& hidden_in, const Variable& head_VD,
                          const Variable& targets_S) {
    const bool differentiate = hidden_in.requires_grad() || head_VD.requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("cross-entropy, both ways");
    constexpr int64_t kPartRows = 128, kPartVocab = 256;
    const bool in_bf16 = multiplies_bf16(hidden_in.scalar_type());
    const FactorTensor hidden(hidden_in, in_bf16), head(head_VD, in_bf16);
    const at::Tensor targets_tensor = targets_S.contiguous();
    const int64_t rows = hidden_in.size(0), width = hidden_in.size(1), vocab = head_VD.size(0);
    const auto f32 = hidden_in.options().dtype(at::kFloat);
    const int64_t* targets = targets_tensor.const_data_ptr<int64_t>();
    const at::Tensor logits_tensor = at::empty({std::min(rows, kBlockTokens), vocab}, f32);
    float* logits = logits_tensor.mutable_data_ptr<float>();
    at::Tensor grad_hidden, grad_head;
    if (differentiate) grad_hidden = at::empty({rows, width}, f32), grad_head = at::empty_like(head_VD);
    std::vector<float> losses(static_cast<size_t>(rows), 0.0f);
    for (int64_t begin = 0; begin < rows; begin += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, rows - begin);
      for_each_row_block(count, kPartRows, [&](int64_t first, int64_t part) {
        float* block = logits + first * vocab;
        product(in_bf16, part, vocab, width, hidden.from((begin + first) * width, width), head.from(0, width, true),
                block, vocab);
        for (int64_t i = 0; i < part; ++i) {
          const int64_t target = targets[begin + first + i];
          float* row = block + i * vocab;
          if (target < 0) {
            std::fill_n(row, vocab, 0.0f);
            continue;
          }
          TESSERA_CHECK(target < vocab, "target outside the vocabulary");
          const float logit = row[target];
          losses[static_cast<size_t>(begin + first + i)] = softmax(row, vocab) - logit;
          row[target] -= 1;
          if (in_bf16 && differentiate) round_in_place(row, vocab);
        }
        if (differentiate) {
          const Factor grad_block = in_bf16 ? rounded_in_place(block, vocab) : Factor(block, vocab);
          product(in_bf16, part, width, vocab, grad_block, head.from(0, width),
                  grad_hidden.mutable_data_ptr<float>() + (begin + first) * width, width);
        }
      });
      if (!differentiate) continue;
      for_each_row_block(vocab, kPartVocab, [&](int64_t first, int64_t part) {
        const Factor grad_logits = in_bf16 ? rounded_in_place(logits, vocab, first) : Factor(logits + first, vocab);
        product(in_bf16, part, width, count, grad_logits.turned(), hidden.from(begin * width, width),
                grad_head.mutable_data_ptr<float>() + first * width, width, begin == 0 ? 0.0f : 1.0f);
      });
    }
    if (differentiate) context->save_for_backward({grad_hidden.to(hidden_in.scalar_type()), grad_head});
    double total = 0;
    for (float loss : losses) total += loss;
    return at::scalar_tensor(total, f32);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {saved[0] * grads[0], saved[1] * grads[0], {}};
  }
};

}  // namespace

at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden_SD, const at::Tensor& head_VD,
                                    const at::Tensor& targets_S) {
  if (uses_kernels(hidden_SD)) return LinearCrossEntropyCpu::apply(hidden_SD, head_VD, targets_S);
  return LinearCrossEntropy::apply(hidden_SD, head_VD, targets_S);
}

at::Tensor target_log_probs(const at::Tensor& hidden_SD, const at::Tensor& head_VD, const at::Tensor& targets_S) {
  const at::NoGradGuard no_grad;
  // On the CPU bf16 ends before the logits, as in the training loss.
  const at::ScalarType precision = uses_kernels(hidden_SD) ? at::kFloat : hidden_SD.scalar_type();
  const at::Tensor head = head_VD.to(precision);
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < hidden_SD.size(0); begin += kBlockTokens) {
    const int64_t count = std::min(kBlockTokens, hidden_SD.size(0) - begin);
    const at::Tensor target = targets_S.narrow(0, begin, count);
    const at::Tensor log_probs =
        at::log_softmax(at::mm(hidden_SD.narrow(0, begin, count).to(precision), head.t()), 1, loss_dtype(hidden_SD));
    parts.push_back(log_probs.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1).mul_(target.ge(0)).to(at::kFloat));
  }
  return at::cat(parts);
}

}  // namespace tessera
