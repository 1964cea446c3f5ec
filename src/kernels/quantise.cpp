// f32 weights into the quantised layout of base/block_layout.h, and a row of any matrix back.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float_bits.h"
#include "base/load.h"
#include "kernels/matvec.h"

namespace tessera {
namespace {

int nearest(float w, float scale, int bits) {
  return bits == 8 ? static_cast<int>(std::clamp(std::nearbyint(w / scale), -127.0f, 127.0f))
                   : static_cast<int>(std::clamp(std::nearbyint(w / scale), -8.0f, 7.0f));
}

// Of one output's inputs in a block, as f16 holds it. 4 bits reach -8 but only +7, so the weight of largest size
// becomes -8, whatever its sign. At 8 bits the best of 16 scales from max |w| / 127 up, by squared error: they differ
// by chance.
float scale_of(const float* w, int64_t count, int bits) {
  float extreme = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (std::fabs(w[i]) > std::fabs(extreme)) extreme = w[i];
  }
  if (bits == 4) return float_from_f16(f16_from_float(extreme / -8.0f));
  float best = 0, least = INFINITY;
  for (int step = 0; step < 16; ++step) {
    const float scale = float_from_f16(f16_from_float(std::fabs(extreme) / (127.0f - 0.5f * static_cast<float>(step))));
    if (scale == 0) break;
    float error = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float e = w[i] - scale * static_cast<float>(nearest(w[i], scale, bits));
      error += e * e;
    }
    if (step == 0 || error < least) best = scale, least = error;
  }
  return best;
}

}  // namespace

void quantise_matrix(const float* w, int64_t outputs, int64_t inputs, int bits, std::byte* out) {
  std::memset(out, 0, static_cast<size_t>(quantised_bytes(outputs, inputs, bits)));
  for (int64_t o0 = 0; o0 < outputs; o0 += kBlockOutputs) {
    for (int64_t i0 = 0; i0 < inputs; i0 += kBlockInputs, out += block_bytes(bits)) {
      std::fill(out + 2 * kBlockOutputs, out + block_bytes(bits), std::byte(bits == 8 ? 0x80 : 0x88));  // zero weights
      for (int64_t o = 0; o < std::min<int64_t>(kBlockOutputs, outputs - o0); ++o) {
        const float* row = w + (o0 + o) * inputs + i0;
        const int64_t count = std::min<int64_t>(kBlockInputs, inputs - i0);
        const float scale = scale_of(row, count, bits);
        const uint16_t stored_scale = f16_from_float(scale);
        std::memcpy(out + 2 * o, &stored_scale, 2);
        for (int64_t i = 0; scale != 0 && i < count; ++i) {
          const WeightPlace place = weight_place(o, i, bits);
          const auto mask = static_cast<std::byte>(((1 << bits) - 1) << place.shift);
          out[place.byte] = (out[place.byte] & ~mask) |
                            static_cast<std::byte>((nearest(row[i], scale, bits) + zero_point(bits)) << place.shift);
        }
      }
    }
  }
}

namespace {

// f(i, weight i) for a row of the matrix.
template <class F>
void for_weights_of_row(const WeightMatrix& w, int64_t index, const F& f) {
  const int64_t first = index * w.inputs;
  switch (w.type) {
    case WeightType::kF32:
      for (int64_t i = 0; i < w.inputs; ++i) f(i, load<float>(w.data + 4 * (first + i)));
      return;
    case WeightType::kBF16:
      for (int64_t i = 0; i < w.inputs; ++i) f(i, float_from_bf16(load<uint16_t>(w.data + 2 * (first + i))));
      return;
    case WeightType::kF16:
      for (int64_t i = 0; i < w.inputs; ++i) f(i, float_from_f16(load<uint16_t>(w.data + 2 * (first + i))));
      return;
    case WeightType::kQ8:
    case WeightType::kQ4:
      break;
  }
  const int bits = w.type == WeightType::kQ8 ? 8 : 4;
  const int64_t across = num_blocks(w.inputs, kBlockInputs), o = index % kBlockOutputs;
  const std::byte* block = w.data + index / kBlockOutputs * across * block_bytes(bits);
  for (int64_t i0 = 0; i0 < w.inputs; i0 += kBlockInputs, block += block_bytes(bits)) {
    const float scale = float_from_f16(load<uint16_t>(block + 2 * o));
    for (int64_t i = 0; i < std::min<int64_t>(kBlockInputs, w.inputs - i0); ++i)
      f(i0 + i, scale * static_cast<float>(stored_weight(block, o, i, bits)));
  }
}

}  // namespace

void copy_weight_row(const WeightMatrix& w, int64_t index, float* out) {
  for_weights_of_row(w, index, [out](int64_t i, float weight) { out[i] = weight; });
}

void add_weight_row(const WeightMatrix& w, int64_t index, float* out) {
  for_weights_of_row(w, index, [out](int64_t i, float weight) { out[i] += weight; });
}

}  // namespace tessera
