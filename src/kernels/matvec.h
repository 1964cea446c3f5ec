// Products of a weight matrix with rows of activations, for the engine. Each result depends on its row and its output
// alone: not on how many rows run together, nor on the range of outputs. So prefill, decode and any batch or number of
// threads give the same bits. Quantised products also give the same bits on every CPU (integer sums, then a fixed
// order).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/block_layout.h"

namespace tessera {

enum class WeightType : uint8_t { kF32, kBF16, kF16, kQ8, kQ4 };  // the last two as base/block_layout.h says

// A weight matrix [outputs, inputs] where it lies; row-major unless quantised.
struct WeightMatrix {
  const std::byte* data = nullptr;
  WeightType type = WeightType::kF32;
  int64_t outputs = 0, inputs = 0;
  bool is_quantised() const { return type == WeightType::kQ8 || type == WeightType::kQ4; }
};

int64_t matrix_bytes(WeightType type, int64_t outputs, int64_t inputs);

// One row of a product: y[o] = <x, W[o]>, or y[o] += scale * <x, W[o]>. Quantised matrices read `quantised`, made of x
// by quantise_row; the others read x.
struct ProductRow {
  const float* x = nullptr;              // [inputs]
  const std::byte* quantised = nullptr;  // quantised_row_bytes(inputs)
  float* y = nullptr;                    // [outputs]
  float scale = 1.0f;
};

enum class Store { kSet, kAdd };

// Outputs [begin, end) of every row; for quantised matrices `begin` is a multiple of 16, and `end` too or the last.
void multiply(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store);

// Row `index` of the matrix as f32 (an embedding).
void copy_weight_row(const WeightMatrix& w, int64_t index, float* out);

// Activations in 8 bits: groups of 32 {f32 scale, i32 offset, i8 values[32]}; scale = max |x| / 127, values
// rounded to nearest even, offset = -8 * (their sum), from which a product with weights stored as 0..15 may start; a
// last group is padded with zeros.
inline constexpr int64_t kQuantisedGroupBytes = 40;
inline constexpr int64_t quantised_row_bytes(int64_t inputs) {
  return num_blocks(inputs, kBlockInputs) * kQuantisedGroupBytes;
}
void quantise_row(const float* x, int64_t inputs, std::byte* out);

// W [outputs, inputs] f32, row-major, into the file's layout. Scales: at 8 bits max |w| / 127; at 4 bits the weight of
// largest size / -8, as in Q4_0. (A search for the least squared error gives worse text: docs/LOG.md.)
void quantise_matrix(const float* w, int64_t outputs, int64_t inputs, int bits, std::byte* out);

// The specification, in plain scalar code (inference_ref.cpp).
namespace ref {
void multiply(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store);
void quantise_row(const float* x, int64_t inputs, std::byte* out);
float weight(const WeightMatrix& w, int64_t output, int64_t input);
}  // namespace ref

}  // namespace tessera
