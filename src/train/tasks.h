// The bridge between tensors and the CPU kernels: when they apply, and how work is shared out over LibTorch's threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <vector>

#include "base/aligned_vector.h"
#include "train/torch.h"

#ifndef INTRA_OP_PARALLEL
#error "compile with -fopenmp: without it at::parallel_for is a plain loop"
#endif

namespace tessera {

// The kernels compute in f32 on the CPU. Under bf16 what passes between functions and what is kept for the gradient is
// bf16, widened on the way in and rounded on the way out: half of the memory, and sums in f32. Products alone are of
// bf16 where there are AMX tiles (train/products.h; AVX-512's own bf16 product has less than half of f32's rate:
// docs/LOG.md). Every other precision and device takes the tensor operations.
inline bool uses_kernels(const at::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}
inline at::Tensor as_f32(const at::Tensor& x) { return x.to(at::kFloat).contiguous(); }

// Calls body(i) for i in [0, n), each on one thread, the next free thread taking the next i. Outputs of different i
// must be disjoint, so the result doesn't depend on who took what.
template <class Body>
void for_each_task(int64_t n, const Body& body) {
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(n, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < n; i = next++) body(i);
  });
}

// Rows [0, rows) in blocks: body(first, count).
template <class Body>
void for_each_row_block(int64_t rows, int64_t block, const Body& body) {
  for_each_task((rows + block - 1) / block, [&](int64_t i) { body(i * block, std::min(block, rows - i * block)); });
}

// A thread's working memory, kept from task to task; `slot` tells buffers that live at the same time apart.
inline float* scratch(size_t slot, int64_t size) {
  thread_local std::vector<AlignedVector<float>> buffers;
  if (slot >= buffers.size()) buffers.resize(slot + 1);
  if (buffers[slot].size() < static_cast<size_t>(size)) buffers[slot].resize(static_cast<size_t>(size));
  return buffers[slot].data();
}

}  // namespace tessera
