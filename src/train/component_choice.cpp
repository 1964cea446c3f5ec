#include "train/component_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "train/section_timer.h"
#include "train/tasks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr int64_t kBlockTokens = 128;

// Which components each token may choose from.
struct Eligibility : torch::CustomClassHolder {
  std::vector<int32_t> chunk_S;
  std::vector<std::vector<int32_t>> eligible;
  const std::vector<int32_t>& of(int64_t token) const {
    return eligible[static_cast<size_t>(chunk_S[static_cast<size_t>(token)])];
  }
};

// Scores -> exp(scores - shift) in place.
void shifted_exp(float* scores, int64_t n, float shift) { exp_minus(scores, n, shift); }
void shifted_exp(double* scores, int64_t n, double shift) {
  for (int64_t i = 0; i < n; ++i) scores[i] = std::exp(scores[i] - shift);
}

// Scores -> softmax in place; returns their logsumexp.
float normalise(float* scores, int64_t n) { return softmax(scores, n); }
double normalise(double* scores, int64_t n) {
  const double largest = *std::max_element(scores, scores + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(scores[i] - largest);
  const double log_sum = largest + std::log(sum);
  shifted_exp(scores, n, log_sum);
  return log_sum;
}

// The places in `scores`, those of the components of `list`, of the k largest scores + bias (by component), the largest
// first; `best` is working memory. False where a score is no number: it is never the larger one.
template <class Number>
bool best_of(const Number* scores, const Number* bias, const std::vector<int32_t>& list, int k, int* places,
             Number* best) {
  bool all_numbers = true;
  std::fill_n(best, k, -std::numeric_limits<Number>::infinity());
  std::fill_n(places, k, -1);
  for (int e = 0; e < static_cast<int>(list.size()); ++e) {
    const Number score = scores[e] + bias[list[static_cast<size_t>(e)]];
    all_numbers = all_numbers && !std::isnan(score);
    int place = k;
    while (place > 0 && score > best[place - 1]) --place;
    if (place == k) continue;
    for (int j = k - 1; j > place; --j) best[j] = best[j - 1], places[j] = places[j - 1];
    best[place] = score, places[place] = e;
  }
  for (int j = 0, next = 0; j < k; ++j) {
    if (places[j] >= 0) continue;
    while (std::find(places, places + k, next) != places + k) ++next;
    places[j] = next;
  }
  return all_numbers;
}

template <class Number>
void gather(const Number* row, const std::vector<int32_t>& list, Number* out) {
  for (size_t e = 0; e < list.size(); ++e) out[e] = row[list[e]];
}

template <class Number>
void choose(const at::Tensor& scores_SLN, const at::Tensor& bias_LN, const Eligibility& eligibility,
            const at::Tensor& ids_SLK, const at::Tensor& weights_SLK, const at::Tensor& log_total_SL) {
  const int64_t layers = scores_SLN.size(1), n = scores_SLN.size(2), k = ids_SLK.size(2);
  const Number *scores = scores_SLN.const_data_ptr<Number>(), *bias = bias_LN.const_data_ptr<Number>();
  int64_t* ids = ids_SLK.mutable_data_ptr<int64_t>();
  Number *weights = weights_SLK.mutable_data_ptr<Number>(),
         *log_total = log_total_SL.defined() ? log_total_SL.mutable_data_ptr<Number>() : nullptr;
  for_each_row_block(scores_SLN.size(0), kBlockTokens, [&](int64_t first, int64_t count) {
    std::vector<Number> candidates(static_cast<size_t>(n)), best(static_cast<size_t>(k));
    std::vector<int> places(static_cast<size_t>(k));
    for (int64_t i = first * layers; i < (first + count) * layers; ++i) {
      const std::vector<int32_t>& list = eligibility.of(i / layers);
      gather(scores + i * n, list, candidates.data());
      const bool all_numbers =
          best_of(candidates.data(), bias + i % layers * n, list, static_cast<int>(k), places.data(), best.data());
      Number* weight = weights + i * k;
      for (int64_t j = 0; j < k; ++j) {
        const size_t place = static_cast<size_t>(places[static_cast<size_t>(j)]);
        ids[i * k + j] = list[place];
        weight[j] = candidates[place];
      }
      if (log_total) {
        log_total[i] = normalise(candidates.data(), static_cast<int64_t>(list.size()));
        // Vector instructions may lose one that is no number; the loss must show it, so that training stops.
        if (!all_numbers) log_total[i] = std::numeric_limits<Number>::quiet_NaN();
      }
      if (k == 1) {
        weight[0] = candidates[static_cast<size_t>(places[0])];  // of the softmax over all eligible ones
      } else {
        normalise(weight, k);
      }
    }
  });
}

// grad_scores [S, L, N] of the weights' gradient and of that of each layer's z-loss.
template <class Number>
at::Tensor gradient(const at::Tensor& scores_SLN, const Eligibility& eligibility, const at::Tensor& ids_SLK,
                    const at::Tensor& weights_SLK, const at::Tensor& log_total_SL, const at::Tensor& grad_weights_SLK,
                    const at::Tensor& grad_z_L) {
  const int64_t layers = scores_SLN.size(1), n = scores_SLN.size(2), k = ids_SLK.size(2);
  const at::Tensor grad_SLN = at::empty_like(scores_SLN);
  const Number *scores = scores_SLN.const_data_ptr<Number>(), *weights = weights_SLK.const_data_ptr<Number>(),
               *log_total = log_total_SL.const_data_ptr<Number>(), *grad_z = grad_z_L.const_data_ptr<Number>(),
               *grad_weights = grad_weights_SLK.const_data_ptr<Number>();
  const int64_t* ids = ids_SLK.const_data_ptr<int64_t>();
  Number* grad = grad_SLN.mutable_data_ptr<Number>();
  const Number z_scale = Number(2) / static_cast<Number>(scores_SLN.size(0));
  for_each_row_block(scores_SLN.size(0), kBlockTokens, [&](int64_t first, int64_t count) {
    std::vector<Number> probs(static_cast<size_t>(n));
    for (int64_t i = first * layers; i < (first + count) * layers; ++i) {
      const std::vector<int32_t>& list = eligibility.of(i / layers);
      const Number *weight = weights + i * k, *grad_weight = grad_weights + i * k;
      Number* to = grad + i * n;
      gather(scores + i * n, list, probs.data());
      shifted_exp(probs.data(), static_cast<int64_t>(list.size()), log_total[i]);
      Number mean = 0;  // of the weights' gradient under the weights
      for (int64_t j = 0; j < k; ++j) mean += weight[j] * grad_weight[j];
      // At K = 1 the softmax is over all eligible ones, so it is taken off all of them.
      const Number of_probs = grad_z[i % layers] * z_scale * log_total[i] - (k == 1 ? mean : 0);
      std::fill_n(to, n, Number(0));
      for (size_t e = 0; e < list.size(); ++e) to[list[e]] = of_probs * probs[e];
      for (int64_t j = 0; j < k; ++j) to[ids[i * k + j]] += weight[j] * (grad_weight[j] - (k == 1 ? 0 : mean));
    }
  });
  return grad_SLN;
}

struct ChooseFunction : torch::autograd::Function<ChooseFunction> {
  static variable_list forward(AutogradContext* context, const Variable& scores_in, const Variable& bias_LN,
                               const c10::intrusive_ptr<Eligibility>& eligibility, int64_t k) {
    const bool learns = scores_in.requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("component choice");
    const at::Tensor scores_SLN = scores_in.contiguous(), bias = bias_LN.contiguous();
    const int64_t tokens = scores_SLN.size(0), layers = scores_SLN.size(1);
    const at::Tensor ids_SLK = at::empty({tokens, layers, k}, at::kLong);
    const at::Tensor weights_SLK = at::empty({tokens, layers, k}, scores_SLN.options());
    at::Tensor log_total_SL;
    if (learns || k == 1) log_total_SL = at::empty({tokens, layers}, scores_SLN.options());
    if (scores_SLN.scalar_type() == at::kDouble) {
      choose<double>(scores_SLN, bias, *eligibility, ids_SLK, weights_SLK, log_total_SL);
    } else {
      choose<float>(scores_SLN, bias, *eligibility, ids_SLK, weights_SLK, log_total_SL);
    }
    context->save_for_backward({scores_SLN, ids_SLK, weights_SLK, log_total_SL});
    context->saved_data["eligibility"] = c10::IValue::make_capsule(eligibility);
    context->mark_non_differentiable({ids_SLK});
    context->set_materialize_grads(false);
    if (!learns) return {ids_SLK, weights_SLK};
    return {ids_SLK, weights_SLK, log_total_SL.square().mean(0)};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("component choice");
    const auto saved = context->get_saved_variables();
    const auto held = context->saved_data["eligibility"].toCapsule();
    const Eligibility& eligibility = static_cast<const Eligibility&>(*held);
    const at::Tensor& scores = saved[0];
    const at::Tensor grad_weights = grads[1].defined() ? grads[1].contiguous() : at::zeros_like(saved[2]);
    const at::Tensor grad_z =
        grads[2].defined() ? grads[2].contiguous() : at::zeros({scores.size(1)}, scores.options());
    const auto grad_of = scores.scalar_type() == at::kDouble ? gradient<double> : gradient<float>;
    return {grad_of(scores, eligibility, saved[1], saved[2], saved[3], grad_weights, grad_z), {}, {}, {}};
  }
};

}  // namespace

ComponentChoice choose_components_cpu(const at::Tensor& scores_SLN, const at::Tensor& bias_LN,
                                      const std::vector<int32_t>& chunk_S,
                                      const std::vector<std::vector<int32_t>>& eligible, int k) {
  TESSERA_CHECK(static_cast<int64_t>(chunk_S.size()) == scores_SLN.size(0), "a token needs a list of components");
  for (const std::vector<int32_t>& list : eligible)
    TESSERA_CHECK(static_cast<int>(list.size()) >= k, "fewer components than a token takes");
  auto eligibility = c10::make_intrusive<Eligibility>();
  eligibility->chunk_S = chunk_S, eligibility->eligible = eligible;
  const variable_list out = ChooseFunction::apply(scores_SLN, bias_LN, eligibility, static_cast<int64_t>(k));
  return {out[0], out[1], out.size() > 2 ? out[2] : at::Tensor()};
}

}  // namespace tessera
