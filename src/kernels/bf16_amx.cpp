#include "kernels/bf16_amx.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/float_bits.h"
#include "kernels/amx_tiles.h"
#include "kernels/intrinsics.h"

namespace tessera {
namespace {

// The weights are the left operand, as they lie in the file: 16 outputs x 32 inputs. Tiles 0 to 3: sums of two blocks
// of outputs by two of rows, 16 outputs x 16 rows, f32. 4 and 5: weights of the two blocks of outputs. 6 and 7:
// activations of the two blocks of rows, 16 pairs of inputs x 16 rows. A single row has tiles of one column.
namespace bf16 {

constexpr TileConfig config_of(uint16_t columns) {
  const uint16_t row_bytes = columns * 4;
  return {.row_bytes = {row_bytes, row_bytes, row_bytes, row_bytes, 64, 64, row_bytes, row_bytes},
          .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
}
constexpr TileConfig kManyRows = config_of(16), kOneRow = config_of(1);
constexpr int kSide = 16, kInputs = 32, kParts = 3, kWeights = 4, kActivations = 6;
constexpr size_t kMostRows = 2 * kSide;

// Rows and columns of 16 x 16 values of 4 bytes change places.
TESSERA_AVX512 void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  }
  // v[4 i + c] has in its 128-bit lane l column 4 l + c of rows 4 i to 4 i + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x44),
                  high01 = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x44),
                  high23 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xee);
    t[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    t[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  std::copy(t, t + 16, v);
}

// Activations of up to 32 rows as tiles want them: [groups of 32 inputs, blocks of 16 rows, 3 parts][16 pairs of
// inputs, 16 rows, 2], bf16; of a single row [groups, 3 parts][16 pairs, 2]. Inputs and rows that are not there are
// zeros.
struct Packed {
  struct alignas(64) Line {
    uint16_t values[kInputs];
  };
  std::vector<Line> lines;
  int64_t groups = 0;
  int blocks = 0, columns = 0;

  int64_t tile_lines() const { return columns; }
  const Line* tile(int64_t group, int part, int block) const {
    return lines.data() + ((group * blocks + block) * kParts + part) * tile_lines();
  }

  TESSERA_AVX512 void pack(std::span<const ProductRow> rows, int64_t inputs) {
    groups = (inputs + kInputs - 1) / kInputs;
    blocks = static_cast<int>((rows.size() + kSide - 1) / kSide);
    columns = rows.size() == 1 ? 1 : kSide;
    lines.resize(static_cast<size_t>(groups * blocks * kParts * tile_lines()));
    Line* to = lines.data();
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t count = std::min<int64_t>(kInputs, inputs - g * kInputs);
      const uint32_t wanted = count == kInputs ? ~0u : (1u << count) - 1;
      for (int block = 0; block < blocks; ++block, to += kParts * tile_lines()) {
        __m512i x[2][kSide] = {};  // of a row the first 16 inputs, the other 16
        const size_t first = static_cast<size_t>(block * kSide), last = std::min(first + kSide, rows.size());
        for (size_t r = first; r < last; ++r) {
          for (int half = 0; half < 2; ++half) {
            x[half][r - first] = _mm512_castps_si512(_mm512_maskz_loadu_ps(
                static_cast<__mmask16>(wanted >> (16 * half)), rows[r].x + g * kInputs + 16 * half));
          }
        }
        if (columns == 1) {
          const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
          const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
          store_parts(_mm512_permutex2var_epi32(x[0][0], even, x[1][0]),
                      _mm512_permutex2var_epi32(x[0][0], odd, x[1][0]), to);
        } else {
          transpose(x[0]), transpose(x[1]);  // of an input 16 rows
          for (int p = 0; p < kSide; ++p) store_parts(x[p / 8][2 * p % kSide], x[p / 8][2 * p % kSide + 1], to + p);
        }
      }
    }
  }

 private:
  // The upper 16 bits of both numbers of a pair, then of what is left of them: 24 bits of mantissa in three parts.
  TESSERA_AVX512 void store_parts(__m512i even, __m512i odd, Line* to) const {
    const __m512i top = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    for (int part = 0; part < kParts; ++part, to += tile_lines()) {
      const __m512i e = _mm512_and_si512(even, top), o = _mm512_and_si512(odd, top);
      _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(e, 16), o));
      even = _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(even), _mm512_castsi512_ps(e)));
      odd = _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(odd), _mm512_castsi512_ps(o)));
    }
  }
};

// A block of at most 16 outputs; `spare` takes a copy with zeros where the matrix ends.
struct Weights {
  const uint16_t* first;
  int64_t inputs, outputs;

  template <class Tiles, int kTile>
  void load(int64_t group, uint16_t (&spare)[kSide][kInputs]) const {
    const uint16_t* at = first + group * kInputs;
    const int64_t count = std::min<int64_t>(kInputs, inputs - group * kInputs);
    if (count == kInputs && outputs == kSide) {
      Tiles::template load<kTile>(at, inputs * 2);
      return;
    }
    std::memset(spare, 0, sizeof spare);
    for (int64_t o = 0; o < outputs; ++o) std::memcpy(spare[o], at + o * inputs, static_cast<size_t>(count) * 2);
    Tiles::template load<kTile>(spare, sizeof spare[0]);
  }
};

// sums: [16 outputs, 16 rows], or [16 outputs] of a single row.
TESSERA_AVX512 void write(const float* sums, int columns, std::span<const ProductRow> rows, int64_t output,
                          int64_t outputs, Store store) {
  __m512i by_row[kSide];
  for (int o = 0; o < (columns == 1 ? 1 : kSide); ++o) by_row[o] = _mm512_load_si512(sums + o * kSide);
  if (columns != 1) transpose(by_row);
  const __mmask16 wanted = static_cast<__mmask16>((1u << outputs) - 1);
  for (size_t r = 0; r < rows.size(); ++r) {
    float* y = rows[r].y + output;
    __m512 sum = _mm512_castsi512_ps(by_row[r]);
    if (store == Store::kAdd)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(rows[r].scale), sum, _mm512_maskz_loadu_ps(wanted, y));
    _mm512_mask_storeu_ps(y, wanted, sum);
  }
}

// kBlocks of 16 outputs by kColumns blocks of rows.
template <class Tiles, int kBlocks, int kColumns>
void multiply_block(const WeightMatrix& w, int64_t output, int64_t end, const Packed& packed,
                    std::span<const ProductRow> rows, Store store) {
  alignas(64) uint16_t spare[kSide][kInputs];
  const uint16_t* data = reinterpret_cast<const uint16_t*>(w.data);
  const auto weights = [&](int block) {
    const int64_t first = output + block * kSide;
    return Weights{data + first * w.inputs, w.inputs, std::min<int64_t>(kSide, end - first)};
  };
  const int64_t stride = 4 * packed.columns;
  Tiles::template zero<0>(), Tiles::template zero<1>(), Tiles::template zero<2>(), Tiles::template zero<3>();
  for (int64_t g = 0; g < packed.groups; ++g) {
    weights(0).template load<Tiles, kWeights>(g, spare);
    if constexpr (kBlocks == 2) weights(1).template load<Tiles, kWeights + 1>(g, spare);
    for (int part = 0; part < kParts; ++part) {
      Tiles::template load<kActivations>(packed.tile(g, part, 0), stride);
      if constexpr (kColumns == 2) Tiles::template load<kActivations + 1>(packed.tile(g, part, 1), stride);
      Tiles::template multiply_bf16<0, kWeights, kActivations>();
      if constexpr (kColumns == 2) Tiles::template multiply_bf16<1, kWeights, kActivations + 1>();
      if constexpr (kBlocks == 2) Tiles::template multiply_bf16<2, kWeights + 1, kActivations>();
      if constexpr (kBlocks == 2 && kColumns == 2) Tiles::template multiply_bf16<3, kWeights + 1, kActivations + 1>();
    }
  }
  alignas(64) float sums[4][kSide * kSide];
  Tiles::template store<0>(sums[0], stride), Tiles::template store<1>(sums[1], stride);
  Tiles::template store<2>(sums[2], stride), Tiles::template store<3>(sums[3], stride);
  for (int block = 0; block < kBlocks; ++block) {
    for (int column = 0; column < kColumns; ++column) {
      const size_t first = static_cast<size_t>(column * kSide);
      write(sums[2 * block + column], packed.columns, rows.subspan(first, std::min<size_t>(kSide, rows.size() - first)),
            output + block * kSide, weights(block).outputs, store);
    }
  }
}

template <class Tiles>
void multiply_packed(const WeightMatrix& w, int64_t begin, int64_t end, const Packed& packed,
                     std::span<const ProductRow> rows, Store store) {
  const TileSession<Tiles> session;
  const auto one = packed.blocks == 2 ? multiply_block<Tiles, 1, 2> : multiply_block<Tiles, 1, 1>;
  const auto two = packed.blocks == 2 ? multiply_block<Tiles, 2, 2> : multiply_block<Tiles, 2, 1>;
  for (int64_t o = begin; o < end; o += 2 * kSide) (end - o > kSide ? two : one)(w, o, end, packed, rows, store);
}

template <template <const TileConfig&> class Tiles>
void multiply_on(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  thread_local Packed packed;
  for (size_t first = 0; first < rows.size(); first += kMostRows) {
    const std::span<const ProductRow> some = rows.subspan(first, std::min(kMostRows, rows.size() - first));
    packed.pack(some, w.inputs);
    if (packed.columns == 1) {
      multiply_packed<Tiles<kOneRow>>(w, begin, end, packed, some, store);
    } else {
      multiply_packed<Tiles<kManyRows>>(w, begin, end, packed, some, store);
    }
  }
}

// A product on tiles is near the twin's: all tiles in use, and a single row.
bool agrees_with_twin() {
  constexpr int64_t kInputs = 80, kOutputs = 32;
  uint32_t state = 1;
  const auto next = [&] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
  };
  std::vector<uint16_t> weights(kInputs * kOutputs);
  for (uint16_t& value : weights) value = bf16_from_float(next());
  const WeightMatrix w = {reinterpret_cast<const std::byte*>(weights.data()), WeightType::kBF16, kOutputs, kInputs};
  std::vector<float> x(kMostRows * kInputs), found(kMostRows * kOutputs), expected(found.size());
  for (float& value : x) value = next();
  for (const size_t count : {kMostRows, size_t{1}}) {
    std::fill(found.begin(), found.end(), NAN);
    std::vector<ProductRow> rows;
    const auto rows_into = [&](std::vector<float>& y) {
      rows.clear();
      for (size_t r = 0; r < count; ++r) rows.push_back({x.data() + r * kInputs, nullptr, y.data() + r * kOutputs});
      return std::span<const ProductRow>(rows);
    };
    multiply_on<HardwareTiles>(w, 0, kOutputs, rows_into(found), Store::kSet);
    ref::multiply(w, 0, kOutputs, rows_into(expected), Store::kSet);
    for (size_t i = 0; i < count * kOutputs; ++i)
      if (!(std::abs(found[i] - expected[i]) < 1e-4f)) return false;
  }
  return true;
}

}  // namespace bf16
}  // namespace

bool has_amx_bf16() {
  static const bool found = cpu_has_tiles(TileArithmetic::kBF16) && bf16::agrees_with_twin();
  return found;
}

void multiply_bf16_amx(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                       Store store) {
  bf16::multiply_on<HardwareTiles>(w, begin, end, rows, store);
}

void multiply_bf16_amx_in_software(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                                   Store store) {
  bf16::multiply_on<SoftwareTiles>(w, begin, end, rows, store);
}

}  // namespace tessera
