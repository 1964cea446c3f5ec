// Compiled once for each instruction set (foreach_target) and chosen at run time by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls body(tag, i) for i in [0, n) by whole vectors, then one by one.
template <class Body>
HWY_INLINE void for_each_vector(int64_t n, const Body& body) {
  const hn::ScalableTag<float> whole;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(whole));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(whole, i);
  const hn::CappedTag<float, 1> single;
  for (; i < n; ++i) body(single, i);
}

// Sum over i in [0, n) of term(tag, i); four accumulators hide the latency of the addition.
template <class Term>
HWY_INLINE float sum_of(int64_t n, const Term& term) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, term(d, i));
    s1 = hn::Add(s1, term(d, i + lanes));
    s2 = hn::Add(s2, term(d, i + 2 * lanes));
    s3 = hn::Add(s3, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, term(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  const hn::CappedTag<float, 1> single;
  for (; i < n; ++i) sum += hn::GetLane(term(single, i));
  return sum;
}

template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(x))));
}

void swiglu_forward(const float* gate_up, int64_t rows, int64_t width, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width;
    float* to = out + r * out_stride;
    for_each_vector(width, [&](auto d, int64_t i) {
      const auto g = hn::LoadU(d, gate + i);
      hn::StoreU(hn::Mul(hn::Mul(g, sigmoid(d, g)), hn::LoadU(d, up + i)), d, to + i);
    });
  }
}

void swiglu_backward(const float* gate_up, const float* grad, int64_t grad_stride, int64_t rows, int64_t width,
                     const float* scale, float* grad_gate_up, float* out, int64_t out_stride, float* dots) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width, *from = grad + r * grad_stride;
    float *grad_gate = grad_gate_up + r * 2 * width, *grad_up = grad_gate + width;
    float* to = out ? out + r * out_stride : nullptr;
    const float row_scale = scale ? scale[r] : 1.0f;
    const float total = sum_of(width, [&](auto d, int64_t i) {
      const auto g = hn::LoadU(d, gate + i), u = hn::LoadU(d, up + i), dy = hn::LoadU(d, from + i);
      const auto s = sigmoid(d, g), silu = hn::Mul(g, s), scaled = hn::Mul(dy, hn::Set(d, row_scale));
      hn::StoreU(hn::Mul(scaled, silu), d, grad_up + i);
      // d silu / d gate = sigmoid + silu (1 - sigmoid)
      hn::StoreU(hn::Mul(hn::Mul(scaled, u), hn::Add(s, hn::NegMulAdd(silu, s, silu))), d, grad_gate + i);
      const auto y = hn::Mul(silu, u);
      if (to) hn::StoreU(y, d, to + i);
      return hn::Mul(dy, y);
    });
    if (dots) dots[r] += total;
  }
}

float dot(const float* a, const float* b, int64_t n) {
  return sum_of(n, [&](auto d, int64_t i) { return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)); });
}

void axpy(float a, const float* x, float* y, int64_t n) {
  for_each_vector(n, [&](auto d, int64_t i) {
    hn::StoreU(hn::MulAdd(hn::Set(d, a), hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  });
}

void rms_norm_forward(const float* x, const float* weight, int64_t rows, int64_t width, float eps, float* y,
                      float* inverse_rms) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * width;
    const float inverse = 1 / std::sqrt(dot(in, in, width) / static_cast<float>(width) + eps);
    inverse_rms[r] = inverse;
    for_each_vector(width, [&](auto d, int64_t i) {
      hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, in + i), hn::Set(d, inverse)), hn::LoadU(d, weight + i)), d,
                 y + r * width + i);
    });
  }
}

void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms, const float* grad_y, int64_t rows,
                       int64_t width, float* grad_x, float* grad_weight) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *in = x + r * width, *grad = grad_y + r * width, inverse = inverse_rms[r];
    const float sum = sum_of(width, [&](auto d, int64_t i) {
      return hn::Mul(hn::Mul(hn::LoadU(d, grad + i), hn::LoadU(d, weight + i)), hn::LoadU(d, in + i));
    });
    const float back = sum * inverse * inverse / static_cast<float>(width);
    for_each_vector(width, [&](auto d, int64_t i) {
      const auto g = hn::LoadU(d, grad + i), v = hn::LoadU(d, in + i), inv = hn::Set(d, inverse);
      hn::StoreU(hn::Mul(inv, hn::NegMulAdd(v, hn::Set(d, back), hn::Mul(g, hn::LoadU(d, weight + i)))), d,
                 grad_x + r * width + i);
      hn::StoreU(hn::MulAdd(hn::Mul(g, inv), v, hn::LoadU(d, grad_weight + i)), d, grad_weight + i);
    });
  }
}

void rotate_heads(float* x, int64_t rows, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
                  float sign) {
  const int64_t half = head_dim / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      float *a = x + (r * heads + h) * head_dim, *b = a + half;
      for_each_vector(half, [&](auto d, int64_t i) {
        const auto c = hn::LoadU(d, cos + r * half + i);
        const auto s = hn::Mul(hn::LoadU(d, sin + r * half + i), hn::Set(d, sign));
        const auto first = hn::LoadU(d, a + i), second = hn::LoadU(d, b + i);
        hn::StoreU(hn::NegMulAdd(second, s, hn::Mul(first, c)), d, a + i);
        hn::StoreU(hn::MulAdd(first, s, hn::Mul(second, c)), d, b + i);
      });
    }
  }
}

float softmax(float* scores, int64_t n) {
  const hn::ScalableTag<float> whole;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(whole));
  auto highest_lanes = hn::Set(whole, scores[0]);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) highest_lanes = hn::Max(highest_lanes, hn::LoadU(whole, scores + j));
  float highest = hn::GetLane(hn::MaxOfLanes(whole, highest_lanes));
  for (; j < n; ++j) highest = std::max(highest, scores[j]);
  const float total = sum_of(n, [&](auto d, int64_t i) {
    const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, highest)));
    hn::StoreU(e, d, scores + i);
    return e;
  });
  const float inverse = 1 / total;
  for_each_vector(
      n, [&](auto d, int64_t i) { hn::StoreU(hn::Mul(hn::LoadU(d, scores + i), hn::Set(d, inverse)), d, scores + i); });
  return highest + std::log(total);
}

void exp_minus(float* scores, int64_t n, float shift) {
  for_each_vector(n, [&](auto d, int64_t i) {
    hn::StoreU(hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, shift))), d, scores + i);
  });
}

void softmax_backward(float* probs, const float* grads, int64_t n, float shift, float scale) {
  for_each_vector(n, [&](auto d, int64_t i) {
    const auto centred = hn::Sub(hn::LoadU(d, grads + i), hn::Set(d, shift));
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, probs + i), hn::Set(d, scale)), centred), d, probs + i);
  });
}

void adamw(float* parameter, const float* grad, float* m, float* v, int64_t n, const AdamWStep& step) {
  const float inverse1 = 1 / step.correction1, inverse2 = 1 / step.correction2;
  for_each_vector(n, [&](auto d, int64_t i) {
    const auto g = hn::LoadU(d, grad + i);
    const auto new_m = hn::MulAdd(hn::Set(d, step.beta1), hn::LoadU(d, m + i), hn::Mul(hn::Set(d, 1 - step.beta1), g));
    const auto new_v =
        hn::MulAdd(hn::Set(d, step.beta2), hn::LoadU(d, v + i), hn::Mul(hn::Mul(hn::Set(d, 1 - step.beta2), g), g));
    hn::StoreU(new_m, d, m + i);
    hn::StoreU(new_v, d, v + i);
    const auto root = hn::Sqrt(hn::Mul(new_v, hn::Set(d, inverse2)));
    const auto update = hn::Div(hn::Mul(new_m, hn::Set(d, inverse1)), hn::Add(root, hn::Set(d, step.eps)));
    const auto p = hn::LoadU(d, parameter + i);
    const auto change = hn::MulAdd(hn::Set(d, step.weight_decay), p, update);
    hn::StoreU(hn::NegMulAdd(hn::Set(d, step.lr), change, p), d, parameter + i);
  });
}

double sum_of_squares(const float* x, int64_t n) {
  double sum = 0;  // f32 within a block, f64 across blocks: exact enough for a norm, and fast
  for (int64_t i = 0; i < n; i += 4096) sum += dot(x + i, x + i, std::min<int64_t>(4096, n - i));
  return sum;
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

#define TESSERA_DISPATCH(result, name, parameters, arguments) \
  HWY_EXPORT(name);                                           \
  result name parameters { return HWY_DYNAMIC_DISPATCH(name) arguments; }

TESSERA_DISPATCH(void, swiglu_forward,
                 (const float* gate_up, int64_t rows, int64_t width, float* out, int64_t out_stride),
                 (gate_up, rows, width, out, out_stride))
TESSERA_DISPATCH(void, swiglu_backward,
                 (const float* gate_up, const float* grad, int64_t grad_stride, int64_t rows, int64_t width,
                  const float* scale, float* grad_gate_up, float* out, int64_t out_stride, float* dots),
                 (gate_up, grad, grad_stride, rows, width, scale, grad_gate_up, out, out_stride, dots))
TESSERA_DISPATCH(void, rms_norm_forward,
                 (const float* x, const float* weight, int64_t rows, int64_t width, float eps, float* y,
                  float* inverse_rms),
                 (x, weight, rows, width, eps, y, inverse_rms))
TESSERA_DISPATCH(void, rms_norm_backward,
                 (const float* x, const float* weight, const float* inverse_rms, const float* grad_y, int64_t rows,
                  int64_t width, float* grad_x, float* grad_weight),
                 (x, weight, inverse_rms, grad_y, rows, width, grad_x, grad_weight))
TESSERA_DISPATCH(void, rotate_heads,
                 (float* x, int64_t rows, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
                  float sign),
                 (x, rows, heads, head_dim, cos, sin, sign))
TESSERA_DISPATCH(float, softmax, (float* scores, int64_t n), (scores, n))
TESSERA_DISPATCH(void, exp_minus, (float* scores, int64_t n, float shift), (scores, n, shift))
TESSERA_DISPATCH(void, softmax_backward, (float* probs, const float* grads, int64_t n, float shift, float scale),
                 (probs, grads, n, shift, scale))
TESSERA_DISPATCH(float, dot, (const float* a, const float* b, int64_t n), (a, b, n))
TESSERA_DISPATCH(void, axpy, (float a, const float* x, float* y, int64_t n), (a, x, y, n))
TESSERA_DISPATCH(void, adamw,
                 (float* parameter, const float* grad, float* m, float* v, int64_t n, const AdamWStep& step),
                 (parameter, grad, m, v, n, step))
TESSERA_DISPATCH(double, sum_of_squares, (const float* x, int64_t n), (x, n))

}  // namespace tessera
#endif
