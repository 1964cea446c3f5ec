// The scalar twins: what each kernel means, as plainly as possible.
#include <algorithm>
#include <cmath>

#include "base/float_bits.h"
#include "kernels/elementwise.h"

namespace tessera::ref {

void swiglu_forward(const float* gate_up, int64_t rows, int64_t width, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width;
    for (int64_t i = 0; i < width; ++i) out[r * out_stride + i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  }
}

void swiglu_backward(const float* gate_up, const float* grad, int64_t grad_stride, int64_t rows, int64_t width,
                     const float* scale, float* grad_gate_up, float* out, int64_t out_stride, float* dots) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width;
    float *grad_gate = grad_gate_up + r * 2 * width, *grad_up = grad_gate + width;
    float total = 0;
    for (int64_t i = 0; i < width; ++i) {
      const float g = grad[r * grad_stride + i], s = scale ? scale[r] : 1.0f;
      const float sigmoid = 1 / (1 + std::exp(-gate[i])), silu = gate[i] * sigmoid;
      grad_up[i] = s * g * silu;
      grad_gate[i] = s * g * up[i] * (sigmoid + silu * (1 - sigmoid));
      total += g * silu * up[i];
      if (out) out[r * out_stride + i] = silu * up[i];
    }
    if (dots) dots[r] += total;
  }
}

void rms_norm_forward(const float* x, const float* weight, int64_t rows, int64_t width, float eps, float* y,
                      float* inverse_rms) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * width;
    inverse_rms[r] = 1 / std::sqrt(dot(in, in, width) / static_cast<float>(width) + eps);
    for (int64_t i = 0; i < width; ++i) y[r * width + i] = in[i] * inverse_rms[r] * weight[i];
  }
}

void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms, const float* grad_y, int64_t rows,
                       int64_t width, float* grad_x, float* grad_weight) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *in = x + r * width, *grad = grad_y + r * width;
    const float inverse = inverse_rms[r];
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += grad[i] * weight[i] * in[i];
    const float back = sum * inverse * inverse / static_cast<float>(width);
    for (int64_t i = 0; i < width; ++i) {
      grad_x[r * width + i] = inverse * (grad[i] * weight[i] - in[i] * back);
      grad_weight[i] += grad[i] * in[i] * inverse;
    }
  }
}

void rotate_heads(float* x, int64_t rows, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
                  float sign) {
  const int64_t half = head_dim / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      float *a = x + (r * heads + h) * head_dim, *b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const float c = cos[r * half + i], s = sign * sin[r * half + i], first = a[i], second = b[i];
        a[i] = first * c - second * s;
        b[i] = second * c + first * s;
      }
    }
  }
}

float softmax(float* scores, int64_t n) {
  const float highest = *std::max_element(scores, scores + n);
  float total = 0;
  for (int64_t i = 0; i < n; ++i) total += scores[i] = std::exp(scores[i] - highest);
  for (int64_t i = 0; i < n; ++i) scores[i] /= total;
  return highest + std::log(total);
}

void exp_minus(float* scores, int64_t n, float shift) {
  for (int64_t i = 0; i < n; ++i) scores[i] = std::exp(scores[i] - shift);
}

void softmax_gradient(const float* probs, float* grads, int64_t n, float shift, float scale) {
  for (int64_t i = 0; i < n; ++i) grads[i] = scale * probs[i] * (grads[i] - shift);
}

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void axpy(float a, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

void adamw(float* parameter, const float* grad, float* m, float* v, int64_t n, const AdamWStep& step) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = step.grad_scale * grad[i];
    m[i] = step.beta1 * m[i] + (1 - step.beta1) * g;
    v[i] = step.beta2 * v[i] + (1 - step.beta2) * g * g;
    const float update = (m[i] / step.correction1) / (std::sqrt(v[i] / step.correction2) + step.eps);
    parameter[i] -= step.lr * (step.weight_decay * parameter[i] + update);
  }
}

double sum_of_squares(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

void round_to_bf16(const float* from, int64_t n, uint16_t* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = bf16_from_float(from[i]);
}

}  // namespace tessera::ref
