// Compiled once for each instruction set (foreach_target) and chosen at run time by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "base/float_bits.h"
#include "kernels/elementwise.h"
#include "kernels/rest-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls body(access, i) for i in [0, n) by whole vectors, then for the rest.
template <class Body>
HWY_INLINE void for_each_vector(int64_t n, const Body& body) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(Whole<decltype(d)>{d}, i);
  if (i < n) body(first_of(d, n - i), i);
}

// Sum over i in [0, n) of term(access, i); four accumulators hide the latency of the addition.
template <class Term>
HWY_INLINE float sum_of(int64_t n, const Term& term) {
  const hn::ScalableTag<float> d;
  const Whole<decltype(d)> whole{d};
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, term(whole, i));
    s1 = hn::Add(s1, term(whole, i + lanes));
    s2 = hn::Add(s2, term(whole, i + 2 * lanes));
    s3 = hn::Add(s3, term(whole, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, term(whole, i));
  if (i < n) {
    const auto rest = first_of(d, n - i);
    s1 = hn::Add(s1, hn::IfThenElseZero(hn::FirstN(d, rest.count), term(rest, i)));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const auto one = hn::Set(d, 1.0f);
  // Highway's Exp overflows to infinity up to 104 and to anything from 178 on.
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 104.0f)))));
}

void swiglu_forward(const float* gate_up, int64_t rows, int64_t width, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width;
    float* to = out + r * out_stride;
    for_each_vector(width, [&](auto at, int64_t i) {
      const auto g = at.load(gate + i);
      at.store(hn::Mul(hn::Mul(g, sigmoid(at.d, g)), at.load(up + i)), to + i);
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
    const float total = sum_of(width, [&](auto at, int64_t i) {
      const auto g = at.load(gate + i), u = at.load(up + i), dy = at.load(from + i);
      const auto s = sigmoid(at.d, g), silu = hn::Mul(g, s), scaled = hn::Mul(dy, hn::Set(at.d, row_scale));
      at.store(hn::Mul(scaled, silu), grad_up + i);
      // d silu / d gate = sigmoid + silu (1 - sigmoid)
      at.store(hn::Mul(hn::Mul(scaled, u), hn::Add(s, hn::NegMulAdd(silu, s, silu))), grad_gate + i);
      const auto y = hn::Mul(silu, u);
      if (to) at.store(y, to + i);
      return hn::Mul(dy, y);
    });
    if (dots) dots[r] += total;
  }
}

float dot(const float* a, const float* b, int64_t n) {
  return sum_of(n, [&](auto at, int64_t i) { return hn::Mul(at.load(a + i), at.load(b + i)); });
}

void axpy(float a, const float* x, float* y, int64_t n) {
  for_each_vector(
      n, [&](auto at, int64_t i) { at.store(hn::MulAdd(hn::Set(at.d, a), at.load(x + i), at.load(y + i)), y + i); });
}

void rms_norm_forward(const float* x, const float* weight, int64_t rows, int64_t width, float eps, float* y,
                      float* inverse_rms) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * width;
    const float inverse = 1 / std::sqrt(dot(in, in, width) / static_cast<float>(width) + eps);
    inverse_rms[r] = inverse;
    for_each_vector(width, [&](auto at, int64_t i) {
      at.store(hn::Mul(hn::Mul(at.load(in + i), hn::Set(at.d, inverse)), at.load(weight + i)), y + r * width + i);
    });
  }
}

void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms, const float* grad_y, int64_t rows,
                       int64_t width, float* grad_x, float* grad_weight) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *in = x + r * width, *grad = grad_y + r * width, inverse = inverse_rms[r];
    const float sum = sum_of(width, [&](auto at, int64_t i) {
      return hn::Mul(hn::Mul(at.load(grad + i), at.load(weight + i)), at.load(in + i));
    });
    const float back = sum * inverse * inverse / static_cast<float>(width);
    for_each_vector(width, [&](auto at, int64_t i) {
      const auto g = at.load(grad + i), v = at.load(in + i), inv = hn::Set(at.d, inverse);
      at.store(hn::Mul(inv, hn::NegMulAdd(v, hn::Set(at.d, back), hn::Mul(g, at.load(weight + i)))),
               grad_x + r * width + i);
      at.store(hn::MulAdd(hn::Mul(g, inv), v, at.load(grad_weight + i)), grad_weight + i);
    });
  }
}

void rotate_heads(float* x, int64_t rows, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
                  float sign) {
  const int64_t half = head_dim / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      float *a = x + (r * heads + h) * head_dim, *b = a + half;
      for_each_vector(half, [&](auto at, int64_t i) {
        const auto c = at.load(cos + r * half + i);
        const auto s = hn::Mul(at.load(sin + r * half + i), hn::Set(at.d, sign));
        const auto first = at.load(a + i), second = at.load(b + i);
        at.store(hn::NegMulAdd(second, s, hn::Mul(first, c)), a + i);
        at.store(hn::MulAdd(first, s, hn::Mul(second, c)), b + i);
      });
    }
  }
}

float softmax(float* scores, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto highest_lanes = hn::Set(d, scores[0]);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) highest_lanes = hn::Max(highest_lanes, hn::LoadU(d, scores + j));
  if (j < n) {
    const auto rest = first_of(d, n - j);
    highest_lanes =
        hn::Max(highest_lanes, hn::IfThenElse(hn::FirstN(d, rest.count), rest.load(scores + j), highest_lanes));
  }
  const float highest = hn::GetLane(hn::MaxOfLanes(d, highest_lanes));
  const float total = sum_of(n, [&](auto at, int64_t i) {
    const auto e = hn::Exp(at.d, hn::Sub(at.load(scores + i), hn::Set(at.d, highest)));
    at.store(e, scores + i);
    return e;
  });
  const float inverse = 1 / total;
  for_each_vector(
      n, [&](auto at, int64_t i) { at.store(hn::Mul(at.load(scores + i), hn::Set(at.d, inverse)), scores + i); });
  return highest + std::log(total);
}

void exp_minus(float* scores, int64_t n, float shift) {
  for_each_vector(n, [&](auto at, int64_t i) {
    at.store(hn::Exp(at.d, hn::Sub(at.load(scores + i), hn::Set(at.d, shift))), scores + i);
  });
}

void softmax_gradient(const float* probs, float* grads, int64_t n, float shift, float scale) {
  for_each_vector(n, [&](auto at, int64_t i) {
    const auto centred = hn::Sub(at.load(grads + i), hn::Set(at.d, shift));
    at.store(hn::Mul(hn::Mul(at.load(probs + i), hn::Set(at.d, scale)), centred), grads + i);
  });
}

void adamw(float* parameter, const float* grad, float* m, float* v, int64_t n, const AdamWStep& step) {
  const float inverse1 = 1 / step.correction1, inverse2 = 1 / step.correction2;
  for_each_vector(n, [&](auto at, int64_t i) {
    const auto g = hn::Mul(at.load(grad + i), hn::Set(at.d, step.grad_scale));
    const auto new_m = hn::MulAdd(hn::Set(at.d, step.beta1), at.load(m + i), hn::Mul(hn::Set(at.d, 1 - step.beta1), g));
    const auto new_v =
        hn::MulAdd(hn::Set(at.d, step.beta2), at.load(v + i), hn::Mul(hn::Mul(hn::Set(at.d, 1 - step.beta2), g), g));
    at.store(new_m, m + i);
    at.store(new_v, v + i);
    const auto root = hn::Sqrt(hn::Mul(new_v, hn::Set(at.d, inverse2)));
    const auto update = hn::Div(hn::Mul(new_m, hn::Set(at.d, inverse1)), hn::Add(root, hn::Set(at.d, step.eps)));
    const auto p = at.load(parameter + i);
    const auto change = hn::MulAdd(hn::Set(at.d, step.weight_decay), p, update);
    at.store(hn::NegMulAdd(hn::Set(at.d, step.lr), change, p), parameter + i);
  });
}

double sum_of_squares(const float* x, int64_t n) {
  double sum = 0;  // f32 within a block, f64 across blocks: exact enough for a norm, and fast
  for (int64_t i = 0; i < n; i += 4096) sum += dot(x + i, x + i, std::min<int64_t>(4096, n - i));
  return sum;
}

void round_to_bf16(const float* from, int64_t n, uint16_t* to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> bits;
  const hn::Rebind<uint16_t, decltype(d)> halves;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = hn::LoadU(d, from + i);
    const auto v = hn::BitCast(bits, value);
    const auto odd = hn::And(hn::ShiftRight<16>(v), hn::Set(bits, 1u));
    const auto nearest = hn::ShiftRight<16>(hn::Add(v, hn::Add(odd, hn::Set(bits, 0x7FFFu))));
    const auto quiet = hn::Or(hn::ShiftRight<16>(v), hn::Set(bits, 0x40u));
    const auto out = hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(value)), quiet, nearest);
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(hn::RebindToSigned<decltype(d)>(), out)), halves, to + i);
  }
  for (; i < n; ++i) to[i] = bf16_from_float(from[i]);
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
TESSERA_DISPATCH(void, softmax_gradient, (const float* probs, float* grads, int64_t n, float shift, float scale),
                 (probs, grads, n, shift, scale))
TESSERA_DISPATCH(float, dot, (const float* a, const float* b, int64_t n), (a, b, n))
TESSERA_DISPATCH(void, axpy, (float a, const float* x, float* y, int64_t n), (a, x, y, n))
TESSERA_DISPATCH(void, adamw,
                 (float* parameter, const float* grad, float* m, float* v, int64_t n, const AdamWStep& step),
                 (parameter, grad, m, v, n, step))
TESSERA_DISPATCH(double, sum_of_squares, (const float* x, int64_t n), (x, n))
TESSERA_DISPATCH(void, round_to_bf16, (const float* from, int64_t n, uint16_t* to), (from, n, to))

}  // namespace tessera
#endif
