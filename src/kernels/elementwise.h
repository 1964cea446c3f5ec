// What a transformer does between its matrix products, in f32, vectorised for the CPU at hand (Highway, chosen at run
// time) and single-threaded: callers share rows out over threads. kernels::ref has a scalar twin of each, which is its
// specification. Matrices are row-major; a stride is the distance of two rows in elements.
#pragma once
#include <cstdint>

namespace tessera {

struct AdamWStep {
  float lr, beta1, beta2, eps, weight_decay;
  float correction1, correction2;  // 1 - beta^t
  float grad_scale = 1;            // of the gradient before anything else: clipping by its norm
};

#define TESSERA_ELEMENTWISE_KERNELS                                                                                    \
  /* out[r] = silu(gate) * up of gate_up[r] = [gate ; up], each `width` long (Shazeer 2020). */                        \
  void swiglu_forward(const float* gate_up, int64_t rows, int64_t width, float* out, int64_t out_stride);              \
  /* grad_gate_up[r] = scale[r] * d(grad[r] . swiglu)/d gate_up; out[r] = swiglu(gate_up[r]); dots[r] += grad[r] .     \
     out[r]. scale (all 1), out and dots may be null. */                                                               \
  void swiglu_backward(const float* gate_up, const float* grad, int64_t grad_stride, int64_t rows, int64_t width,      \
                       const float* scale, float* grad_gate_up, float* out, int64_t out_stride, float* dots);          \
  /* y[r] = x[r] / rms(x[r]) * weight (Zhang, Sennrich 2019); inverse_rms[r] is kept for the gradient. */              \
  void rms_norm_forward(const float* x, const float* weight, int64_t rows, int64_t width, float eps, float* y,         \
                        float* inverse_rms);                                                                           \
  /* grad_x[r] from grad_y[r]; grad_weight += its sum over the rows. */                                                \
  void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms, const float* grad_y,           \
                         int64_t rows, int64_t width, float* grad_x, float* grad_weight);                              \
  /* Rotates the two halves of each head of x[r] = [heads, head_dim] by the angles of row r (Su et al. 2021), cos and  \
     sin [rows, head_dim / 2]; `sign` -1 turns back, which is the gradient. */                                         \
  void rotate_heads(float* x, int64_t rows, int64_t heads, int64_t head_dim, const float* cos, const float* sin,       \
                    float sign);                                                                                       \
  /* scores[0, n) -> softmax in place; returns log(sum(exp(scores))). */                                               \
  float softmax(float* scores, int64_t n);                                                                             \
  /* scores[i] -> exp(scores[i] - shift) in place. */                                                                  \
  void exp_minus(float* scores, int64_t n, float shift);                                                               \
  /* grads[i] -> scale * probs[i] * (grads[i] - shift) in place: from the gradient of softmax's output to its input's. \
   */                                                                                                                  \
  void softmax_gradient(const float* probs, float* grads, int64_t n, float shift, float scale);                        \
  float dot(const float* a, const float* b, int64_t n);                                                                \
  /* y += a x. */                                                                                                      \
  void axpy(float a, const float* x, float* y, int64_t n);                                                             \
  /* Decoupled weight decay and Adam's update (Loshchilov, Hutter 2019) of n parameters in one pass. */                \
  void adamw(float* parameter, const float* grad, float* m, float* v, int64_t n, const AdamWStep& step);               \
  double sum_of_squares(const float* x, int64_t n);                                                                    \
  /* To the nearest bf16, of two as near the even one; a NaN stays one. `to` may be where `from` begins. */            \
  void round_to_bf16(const float* from, int64_t n, uint16_t* to);

TESSERA_ELEMENTWISE_KERNELS

namespace ref {
TESSERA_ELEMENTWISE_KERNELS
}  // namespace ref

}  // namespace tessera
