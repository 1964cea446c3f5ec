// f32 weights into the quantised layout of base/block_layout.h.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float_bits.h"
#include "kernels/matvec.h"

namespace tessera {
namespace {

// A scale that f16 can hold.
float rounded(float scale) { return float_from_f16(f16_from_float(scale)); }

// One output's 32 inputs, padded with zeros.
struct Group {
  alignas(32) float w[kBlockInputs];
};

struct Fit {
  float error = 0;             // sum of squares
  float products = 0, squares = 0;  // sum of w q and of q q: their ratio is the best scale for these q
};

// Without FMA, which would give other bits.
__attribute__((target_clones("avx2", "default"))) Fit fit(const Group& group, float scale) {
  const float inverse = 1.0f / scale;
  float error[8] = {}, products[8] = {}, squares[8] = {};
  for (int i = 0; i < kBlockInputs; i += 8) {
    for (int j = 0; j < 8; ++j) {
      const float w = group.w[i + j], q = std::min(std::max(std::rint(w * inverse), -8.0f), 7.0f), off = w - q * scale;
      error[j] += off * off;
      products[j] += w * q;
      squares[j] += q * q;
    }
  }
  Fit sum;
  for (int j = 0; j < 8; ++j) sum.error += error[j], sum.products += products[j], sum.squares += squares[j];
  return sum;
}

float best_scale(const Group& group, int bits) {
  float extreme = 0;
  for (const float w : group.w) {
    if (std::fabs(w) > std::fabs(extreme)) extreme = w;
  }
  if (bits == 8) return rounded(std::fabs(extreme) / 127.0f);
  static const char* mode = getenv("QMODE");
  if (mode && *mode == '0') return rounded(extreme / -8.0f);
  // The nibble reaches -8 but only +7: either sign of the scale, and a little clipping, can be better.
  float best = 0, least = INFINITY;
  const auto consider = [&](float scale) {
    scale = rounded(scale);
    if (scale == 0) return;
    const Fit found = fit(group, scale);
    if (found.error < least) least = found.error, best = scale;
  };
  for (int step = 0; step <= 20; ++step) {
    for (const float sign : {-1.0f, 1.0f}) consider(sign * extreme / (6.5f + 0.1f * static_cast<float>(step)));
  }
  if (best != 0 && mode && *mode == '2') {
    for (int k = 0; k < 2; ++k) {
      const Fit found = fit(group, best);
      consider(found.products / found.squares);
    }
  }
  return best;
}

}  // namespace

void quantise_matrix(const float* w, int64_t outputs, int64_t inputs, int bits, std::byte* out) {
  std::memset(out, 0, static_cast<size_t>(quantised_bytes(outputs, inputs, bits)));
  for (int64_t o0 = 0; o0 < outputs; o0 += kBlockOutputs) {
    for (int64_t i0 = 0; i0 < inputs; i0 += kBlockInputs, out += block_bytes(bits)) {
      std::byte* cells = out + 2 * kBlockOutputs;
      std::fill(cells, out + block_bytes(bits), std::byte(bits == 8 ? 0x80 : 0x88));  // zero weights
      for (int64_t o = 0; o < std::min<int64_t>(kBlockOutputs, outputs - o0); ++o) {
        const int64_t count = std::min<int64_t>(kBlockInputs, inputs - i0);
        Group group = {};
        std::copy_n(w + (o0 + o) * inputs + i0, count, group.w);
        const float scale = best_scale(group, bits);
        const uint16_t stored_scale = f16_from_float(scale);
        std::memcpy(out + 2 * o, &stored_scale, 2);
        for (int64_t i = 0; scale != 0 && i < count; ++i) {
          const float limit = bits == 8 ? 127.0f : 8.0f;
          const int q =
              static_cast<int>(std::clamp(std::nearbyint(group.w[i] / scale), -limit, bits == 8 ? limit : limit - 1.0f));
          if (bits == 8) {
            cells[i / 4 * 64 + o * 4 + i % 4] = static_cast<std::byte>(q + 128);
          } else {
            std::byte& byte = cells[i / 8 * 64 + o * 4 + i % 4];
            const int shift = i % 8 < 4 ? 0 : 4;
            byte = (byte & static_cast<std::byte>(0xf0 >> shift)) | static_cast<std::byte>((q + 8) << shift);
          }
        }
      }
    }
  }
}

}  // namespace tessera
