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
// by quantise_row for their type; the others read x.
struct ProductRow {
  const float* x = nullptr;              // [inputs]
  const std::byte* quantised = nullptr;  // quantised_row_bytes(inputs)
  float* y = nullptr;                    // [outputs]
  float scale = 1.0f;
};

enum class Store { kSet, kAdd };

// Outputs [begin, end) of every row; for quantised matrices `begin` is a multiple of 16, and `end` too or the last.
void multiply(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store);

// Row `index` of the matrix as f32 (an embedding); added to what is there.
void copy_weight_row(const WeightMatrix& w, int64_t index, float* out);
void add_weight_row(const WeightMatrix& w, int64_t index, float* out);

// Activations for quantised weights: groups of 32 {f32 scale, i32 offset, values[32]}, values rounded to nearest even;
// a last group is padded with zeros. For 4 bits the values are i8, scale = max |x| / 127; for 8 bits i16, scale = max
// |x| / 32767, the middle two of each four swapped: 8-bit weights lose less than 8-bit activations would, and products
// of 16 bits cost no more on AVX2, twice as much with VNNI (docs/LOG.md). offset = -(zero point of the weights) * (sum
// of the values), from which a product with the stored weights starts.
inline constexpr int64_t quantised_group_bytes(WeightType reader) { return reader == WeightType::kQ8 ? 72 : 40; }
inline constexpr float kLeastActivation = 1e-30f;  // a group with none as large counts as zeros
// Room for either form.
inline constexpr int64_t quantised_row_bytes(int64_t inputs) {
  return num_blocks(inputs, kBlockInputs) * quantised_group_bytes(WeightType::kQ8);
}
// reader: type of the weights, kQ8 or kQ4.
void quantise_row(const float* x, int64_t inputs, WeightType reader, std::byte* out);

// W [outputs, inputs] f32, row-major, into the file's layout. Scales: at 4 bits the weight of largest size / -8, as in
// Q4_0; at 8 bits the best of 16 from max |w| / 127 up by squared error. (At 4 bits such a search gives worse text:
// docs/LOG.md.)
void quantise_matrix(const float* w, int64_t outputs, int64_t inputs, int bits, std::byte* out);

// The specification, in plain scalar code (inference_ref.cpp).
namespace ref {
void multiply(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store);
void quantise_row(const float* x, int64_t inputs, WeightType reader, std::byte* out);
float weight(const WeightMatrix& w, int64_t output, int64_t input);
}  // namespace ref

}  // namespace tessera
