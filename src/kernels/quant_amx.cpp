#include "kernels/quant_amx.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "kernels/amx_tiles.h"
#include "kernels/intrinsics.h"

namespace tessera {
namespace {

// Tiles 0 to 3: sums, 16 rows x 16 outputs, i32. 4 and 5: activations, 16 rows x 32 inputs, a byte each. 6: weights, 8
// fours of inputs x 16 outputs, a byte each, as a block of the file has them.
constexpr int kActivations = 4, kWeights = 6;
constexpr TileConfig kConfig = {.row_bytes = {64, 64, 64, 64, 32, 32, 64}, .rows = {16, 16, 16, 16, 16, 16, 8}};
// Activations as tiles want them. 4 bits: one plane of i8. 8 bits, whose activations are i16: the low bytes, then the
// high ones, x = low + 256 high.
template <int kBits>
struct Packed {
  static constexpr int kPlanes = kBits == 8 ? 2 : 1, kTiles = 4 / kPlanes;  // the sums' tiles, shared out
  static constexpr int64_t kPlaneBytes = kAmxRows * kBlockInputs;
  static constexpr int64_t kGroupBytes = quantised_group_bytes(kBits == 8 ? WeightType::kQ8 : WeightType::kQ4);
  std::vector<std::byte> planes;  // [tiles, groups, planes, 16 rows, 32 inputs]
  std::vector<float> scales;      // [tiles, groups, 16 rows]
  std::vector<int32_t> offsets;   // the same

  TESSERA_AVX512 void pack(std::span<const ProductRow> rows, int64_t groups) {
    const size_t tiles = rows.size() / kAmxRows;
    planes.resize(tiles * static_cast<size_t>(groups * kPlanes * kPlaneBytes));
    scales.resize(rows.size() * static_cast<size_t>(groups));
    offsets.resize(scales.size());
    // Of four i16 the middle two are swapped; within 16 bytes: 8 low bytes in order, then 8 high ones.
    const __m512i split = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 2, 6, 8, 12, 10, 14, 1, 5, 3, 7, 9, 13, 11, 15));
    const __m512i halves = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t tile = static_cast<int64_t>(i / kAmxRows), row = static_cast<int64_t>(i % kAmxRows);
      const std::byte* group = rows[i].quantised;
      for (int64_t g = 0; g < groups; ++g, group += kGroupBytes) {
        const int64_t at = (tile * groups + g) * static_cast<int64_t>(kAmxRows) + row;
        std::memcpy(&scales[static_cast<size_t>(at)], group, 4);
        std::memcpy(&offsets[static_cast<size_t>(at)], group + 4, 4);
        std::byte* to = planes.data() + (tile * groups + g) * kPlanes * kPlaneBytes + row * kBlockInputs;
        if constexpr (kBits == 8) {
          const __m512i ordered =
              _mm512_permutexvar_epi64(halves, _mm512_shuffle_epi8(_mm512_loadu_si512(group + 8), split));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(ordered));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + kPlaneBytes), _mm512_extracti64x4_epi64(ordered, 1));
        } else {
          std::memcpy(to, group + 8, kBlockInputs);
        }
      }
    }
  }
};

// A block of 16 outputs for kTiles x 16 rows.
template <class Tiles, int kBits>
struct Block {
  using Activations = Packed<kBits>;
  static constexpr int kPlanes = Activations::kPlanes, kTiles = Activations::kTiles;

  // Sums of tile t, and of those after it, with the group whose weights are loaded.
  template <int t>
  static void multiply(const std::byte* planes, int64_t tile_stride, int tiles, int32_t (*sums)[kPlanes][16][16]) {
    if constexpr (t < kTiles) {
      if (t >= tiles) return;
      constexpr int kSums = t * kPlanes;
      Tiles::template zero<kSums>();
      Tiles::template load<kActivations>(planes, kBlockInputs);
      Tiles::template multiply_bytes<kSums, kActivations, kWeights, kBits == 4>();
      Tiles::template store<kSums>(&sums[t][0][0][0], 64);
      if constexpr (kPlanes == 2) {
        Tiles::template zero<kSums + 1>();
        Tiles::template load<kActivations + 1>(planes + Activations::kPlaneBytes, kBlockInputs);
        Tiles::template multiply_bytes<kSums + 1, kActivations + 1, kWeights, true>();
        Tiles::template store<kSums + 1>(&sums[t][1][0][0], 64);
      }
      multiply<t + 1>(planes + tile_stride, tile_stride, tiles, sums);
    }
  }

  TESSERA_AVX512 static void run(const std::byte* block, int64_t groups, const Activations& activations,
                                 std::span<const ProductRow> rows, int64_t output, int64_t count, Store store) {
    const int tiles = static_cast<int>(rows.size() / kAmxRows);
    const int64_t tile_stride = groups * kPlanes * Activations::kPlaneBytes;
    alignas(64) float totals[kTiles * 16][16] = {};
    alignas(64) int32_t sums[kTiles][kPlanes][16][16];
    alignas(64) std::byte weights[8][64];
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t g = 0; g < groups; ++g, block += block_bytes(kBits)) {
      const std::byte* cells = block + 2 * kBlockOutputs;
      if constexpr (kBits == 8) {
        Tiles::template load<kWeights>(cells, 64);
      } else {
        for (int c = 0; c < 4; ++c) {
          const __m512i bytes = _mm512_loadu_si512(cells + 64 * c);
          _mm512_store_si512(weights[2 * c], _mm512_and_si512(bytes, low));
          _mm512_store_si512(weights[2 * c + 1], _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low));
        }
        Tiles::template load<kWeights>(weights[0], 64);
      }
      multiply<0>(activations.planes.data() + g * kPlanes * Activations::kPlaneBytes, tile_stride, tiles, sums);
      const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block)));
      for (int t = 0; t < tiles; ++t) {
        const size_t at = static_cast<size_t>((t * groups + g) * 16);
        for (int r = 0; r < 16; ++r) {
          __m512i dots = _mm512_load_si512(sums[t][0][r]);
          if constexpr (kPlanes == 2)
            dots = _mm512_add_epi32(dots, _mm512_slli_epi32(_mm512_load_si512(sums[t][1][r]), 8));
          const size_t row = at + static_cast<size_t>(r);
          dots = _mm512_add_epi32(dots, _mm512_set1_epi32(activations.offsets[row]));
          const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(activations.scales[row]));
          float* total = totals[16 * t + r];
          _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, _mm512_load_ps(total)));
        }
      }
    }
    const __mmask16 wanted = static_cast<__mmask16>((1u << count) - 1);
    for (size_t r = 0; r < rows.size(); ++r) {
      float* y = rows[r].y + output;
      __m512 sum = _mm512_load_ps(totals[r]);
      if (store == Store::kAdd)
        sum = _mm512_fmadd_ps(_mm512_set1_ps(rows[r].scale), sum, _mm512_maskz_loadu_ps(wanted, y));
      _mm512_mask_storeu_ps(y, wanted, sum);
    }
  }
};

template <class Tiles, int kBits>
void multiply_rows(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  thread_local Packed<kBits> packed;
  constexpr size_t kMost = Packed<kBits>::kTiles * kAmxRows;
  const int64_t groups = num_blocks(w.inputs, kBlockInputs);
  TESSERA_CHECK(rows.size() % kAmxRows == 0, "rows that fill no tile");
  const TileSession<Tiles> session;
  for (size_t first = 0; first < rows.size(); first += kMost) {
    const std::span<const ProductRow> some = rows.subspan(first, std::min(kMost, rows.size() - first));
    packed.pack(some, groups);
    for (int64_t o = begin; o < end; o += kBlockOutputs) {
      Block<Tiles, kBits>::run(w.data + o / kBlockOutputs * groups * block_bytes(kBits), groups, packed, some, o,
                               std::min<int64_t>(kBlockOutputs, end - o), store);
    }
  }
}

template <class Tiles>
void multiply_on(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  w.type == WeightType::kQ8 ? multiply_rows<Tiles, 8>(w, begin, end, rows, store)
                            : multiply_rows<Tiles, 4>(w, begin, end, rows, store);
}

// A product on tiles is what the twin says, and takes less time than by `other`: all tiles in use.
bool trial_agrees(MultiplyQuantised other) {
  constexpr int64_t kInputs = 256, kOutputs = 128;
  constexpr size_t kRows = 4 * kAmxRows;
  uint32_t state = 1;
  const auto next = [&] { return (state = state * 1664525u + 1013904223u) >> 8; };
  for (const WeightType type : {WeightType::kQ8, WeightType::kQ4}) {
    std::vector<float> weights(kInputs * kOutputs), x(kRows * kInputs);
    for (std::vector<float>* values : {&weights, &x})
      for (float& value : *values) value = static_cast<float>(next() % 2001) / 1000.0f - 1.0f;
    std::vector<std::byte> bytes(static_cast<size_t>(matrix_bytes(type, kOutputs, kInputs)));
    quantise_matrix(weights.data(), kOutputs, kInputs, type == WeightType::kQ8 ? 8 : 4, bytes.data());
    const WeightMatrix w = {bytes.data(), type, kOutputs, kInputs};
    const size_t row_bytes = static_cast<size_t>(quantised_row_bytes(kInputs));
    std::vector<std::byte> quantised(kRows * row_bytes);
    std::vector<float> found(kRows * kOutputs), expected(found.size());
    std::vector<ProductRow> rows(kRows);
    for (size_t r = 0; r < kRows; ++r) ref::quantise_row(&x[r * kInputs], kInputs, type, &quantised[r * row_bytes]);
    const auto seconds = [&](MultiplyQuantised multiply, std::vector<float>& y) {  // the best of five
      for (size_t r = 0; r < kRows; ++r) rows[r] = {nullptr, &quantised[r * row_bytes], &y[r * kOutputs]};
      double best = 1e9;
      for (int i = 0; i < 5; ++i) {
        const double begin = now_s();
        multiply(w, 0, kOutputs, rows, Store::kSet);
        best = std::min(best, now_s() - begin);
      }
      return best;
    };
    const double others = seconds(other, expected);
    ref::multiply(w, 0, kOutputs, rows, Store::kSet);
    if (seconds(multiply_on<HardwareTiles<kConfig>>, found) > others || found != expected) return false;
  }
  return true;
}

}  // namespace

bool has_amx(MultiplyQuantised other) {
  static const bool found = cpu_has_tiles(TileArithmetic::kInt8) && trial_agrees(other);
  return found;
}

void multiply_amx(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  multiply_on<HardwareTiles<kConfig>>(w, begin, end, rows, store);
}

void multiply_amx_in_software(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                              Store store) {
  multiply_on<SoftwareTiles<kConfig>>(w, begin, end, rows, store);
}

int64_t amx_rounds(int64_t rounds) {
  static constexpr TileConfig full = {.row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}};
  using Tiles = HardwareTiles<full>;
  const TileSession<Tiles> session;
  Tiles::zero<0>(), Tiles::zero<1>(), Tiles::zero<2>(), Tiles::zero<3>(), Tiles::zero<4>(), Tiles::zero<5>();
  for (int64_t i = 0; i < rounds; ++i) {
    Tiles::multiply_bytes<0, 4, 5, true>(), Tiles::multiply_bytes<1, 4, 5, true>();
    Tiles::multiply_bytes<2, 4, 5, true>(), Tiles::multiply_bytes<3, 4, 5, true>();
  }
  return rounds * 4 * 16 * 16 * 64;
}

}  // namespace tessera
