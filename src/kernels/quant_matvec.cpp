// Quantised products (base/block_layout.h). Of each block and row: the integer dot products of 16 outputs, then
// sum += dot * (weight scale * activation scale), one fused multiply-add in the order of the groups: the same bits from
// every way here and from inference_ref.cpp.
#include "kernels/quant_matvec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/intrinsics.h"
#include "kernels/quant_amx.h"

#define TESSERA_AVX2 __attribute__((target("avx2,fma,f16c")))
#define TESSERA_AVX2_INLINE __attribute__((target("avx2,fma,f16c"), always_inline)) inline

namespace tessera {
namespace {

constexpr int64_t kScaleBytes = 2 * kBlockOutputs;
constexpr int64_t kRowBytes = 20 << 10;

constexpr int64_t group_bytes(int bits) { return quantised_group_bytes(bits == 8 ? WeightType::kQ8 : WeightType::kQ4); }

// Four inputs of a quantised row (two of 16 bits), or its scale, in every lane: one load. (Through an integer register,
// as a compiler does with _mm256_set1_epi32, it is three instructions.)
TESSERA_AVX2_INLINE __m256 broadcast(const std::byte* from) {
  return _mm256_broadcast_ss(reinterpret_cast<const float*>(from));
}
TESSERA_AVX2_INLINE __m256i broadcast_inputs(const std::byte* from) { return _mm256_castps_si256(broadcast(from)); }
TESSERA_AVX2_INLINE __m256i load_bytes(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// Keeps a sum in its register: the compiler would reorder the additions and run out of registers.
TESSERA_AVX2_INLINE void pin(__m256i& sum) { asm("" : "+x"(sum)); }

// dots[h][r]: the integer dot products of half h of a block (8 outputs) with one group of row r, from the group's
// offset. 8 bits: stored 1..255 as 16 bits x activations in 16, in pairs: the even inputs of a cell, then the odd ones.
template <int R>
TESSERA_AVX2_INLINE void dots_q8(const std::byte* cells, const std::byte* const* groups, __m256i (*dots)[R]) {
  const __m256i low = _mm256_set1_epi16(255);
  for (int r = 0; r < R; ++r) dots[0][r] = dots[1][r] = broadcast_inputs(groups[r] + 4);
#pragma GCC unroll 1
  for (int c = 0; c < 8; ++c) {
    for (int odd = 0; odd < 2; ++odd) {
      __m256i w[2];
      for (int h = 0; h < 2; ++h) {
        const __m256i bytes = load_bytes(cells + 64 * c + 32 * h);
        w[h] = odd ? _mm256_srli_epi16(bytes, 8) : _mm256_and_si256(bytes, low);
      }
      for (int r = 0; r < R; ++r) {
        const __m256i x = broadcast_inputs(groups[r] + 8 + 8 * c + 4 * odd);
        for (int h = 0; h < 2; ++h) {
          dots[h][r] = _mm256_add_epi32(dots[h][r], _mm256_madd_epi16(w[h], x));
          pin(dots[h][r]);
        }
      }
    }
  }
}

// 4 bits: stored 0..15 x activations; eight pairs stay below 8 * 2 * 15 * 127 = 30,480, so they add up in 16 bits. The
// zero point comes off by the group's offset.
template <int R>
TESSERA_AVX2_INLINE void dots_q4(const std::byte* cells, const std::byte* const* groups, __m256i (*dots)[R]) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256i sums[2][R];
  for (int r = 0; r < R; ++r) sums[0][r] = sums[1][r] = _mm256_setzero_si256();
#pragma GCC unroll 1
  for (int c = 0; c < 4; ++c) {
    for (int nibble = 0; nibble < 2; ++nibble) {
      __m256i w[2];
      for (int h = 0; h < 2; ++h) {
        const __m256i bytes = load_bytes(cells + 64 * c + 32 * h);
        w[h] = _mm256_and_si256(nibble == 0 ? bytes : _mm256_srli_epi16(bytes, 4), low);
      }
      for (int r = 0; r < R; ++r) {
        const __m256i x = broadcast_inputs(groups[r] + 8 + 8 * c + 4 * nibble);
        for (int h = 0; h < 2; ++h) {
          sums[h][r] = _mm256_add_epi16(sums[h][r], _mm256_maddubs_epi16(w[h], x));
          pin(sums[h][r]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    const __m256i offset = broadcast_inputs(groups[r] + 4);
    for (int h = 0; h < 2; ++h) dots[h][r] = _mm256_add_epi32(_mm256_madd_epi16(sums[h][r], ones), offset);
  }
}

// Fused like the sums, so that every way and the twin round alike.
TESSERA_AVX2_INLINE void store_outputs(const float* sums, int64_t output, int64_t count, const ProductRow& row,
                                       Store store) {
  float* y = row.y + output;
  for (int64_t o = 0; o < count; ++o) y[o] = store == Store::kSet ? sums[o] : std::fma(row.scale, sums[o], y[o]);
}

struct Avx2 {
  static constexpr int kTile = 4;

  template <int kBits, int R>
  TESSERA_AVX2 static void block_row(const WeightMatrix& w, int64_t output, int64_t count, const ProductRow* rows,
                                     Store store) {
    const int64_t across = num_blocks(w.inputs, kBlockInputs);
    const std::byte* block = w.data + output / kBlockOutputs * across * block_bytes(kBits);
    // In memory, not in registers: they are touched once a group, and the integer sums need the registers.
    alignas(32) float sums_storage[R][kBlockOutputs] = {};
    float(*sums)[kBlockOutputs] = sums_storage;
    asm("" : "+r"(sums) : : "memory");
    const std::byte* groups[R];
    for (int r = 0; r < R; ++r) groups[r] = rows[r].quantised;
    for (int64_t g = 0; g < across; ++g, block += block_bytes(kBits)) {
      __m256i dots[2][R];
      if constexpr (kBits == 8) {
        dots_q8<R>(block + kScaleBytes, groups, dots);
      } else {
        dots_q4<R>(block + kScaleBytes, groups, dots);
      }
      for (int h = 0; h < 2; ++h) {
        const __m256 scales = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * h)));
        for (int r = 0; r < R; ++r) {
          const __m256 sum = _mm256_load_ps(sums[r] + 8 * h), scale = _mm256_mul_ps(scales, broadcast(groups[r]));
          _mm256_store_ps(sums[r] + 8 * h, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[h][r]), scale, sum));
        }
      }
      for (int r = 0; r < R; ++r) groups[r] += group_bytes(kBits);
    }
    for (int r = 0; r < R; ++r) store_outputs(sums[r], output, count, rows[r], store);
  }
};

// The rows in tiles of Way::kTile (4 or 8), a block of outputs at a time; as many rows at once as stay in the
// first-level cache while the blocks pass by.
template <class Way, int kBits>
void walk(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  constexpr int kTile = Way::kTile;
  const int64_t row_bytes = num_blocks(w.inputs, kBlockInputs) * group_bytes(kBits);
  const size_t most = static_cast<size_t>(std::max<int64_t>(kTile, kRowBytes / row_bytes / kTile * kTile));
  for (size_t first = 0; first < rows.size(); first += most) {
    const std::span<const ProductRow> some = rows.subspan(first, std::min(most, rows.size() - first));
    for (int64_t o = begin; o < end; o += kBlockOutputs) {
      const int64_t count = std::min<int64_t>(kBlockOutputs, end - o);
      size_t r = 0;
      for (; r + kTile <= some.size(); r += kTile) Way::template block_row<kBits, kTile>(w, o, count, &some[r], store);
      if constexpr (kTile > 4) {
        if (some.size() - r >= 4) Way::template block_row<kBits, 4>(w, o, count, &some[r], store), r += 4;
      }
      if (some.size() - r == 3) Way::template block_row<kBits, 3>(w, o, count, &some[r], store);
      if (some.size() - r == 2) Way::template block_row<kBits, 2>(w, o, count, &some[r], store);
      if (some.size() - r == 1) Way::template block_row<kBits, 1>(w, o, count, &some[r], store);
    }
  }
}

template <class Way>
void multiply_by(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  w.type == WeightType::kQ8 ? walk<Way, 8>(w, begin, end, rows, store) : walk<Way, 4>(w, begin, end, rows, store);
}

// With vpdpbusd (4 bits: four inputs) and vpdpwssd (8 bits: two, of 16 bits) into 32-bit sums that never saturate. Both
// split 64 bytes of a block in two: low and high nibbles, or even and odd bytes; each half meets 4 bytes of a row.
struct AvxVnni {
  static constexpr int kTile = 4;

  template <int kBits, int R>
  __attribute__((target("avx2,fma,f16c,avxvnni"))) static void block_row(const WeightMatrix& w, int64_t output,
                                                                         int64_t count, const ProductRow* rows,
                                                                         Store store) {
    const int64_t across = num_blocks(w.inputs, kBlockInputs);
    const std::byte* block = w.data + output / kBlockOutputs * across * block_bytes(kBits);
    const __m256i low = kBits == 8 ? _mm256_set1_epi16(255) : _mm256_set1_epi8(15);
    __m256 sums[2][R];
    for (int r = 0; r < R; ++r) sums[0][r] = sums[1][r] = _mm256_setzero_ps();
    for (int64_t g = 0; g < across; ++g, block += block_bytes(kBits)) {
      for (int half = 0; half < 2; ++half) {
        const __m256 scales = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * half)));
        __m256i weights[2 * kBits];
        for (int c = 0; c < kBits; ++c) {
          const __m256i bytes = load_bytes(block + kScaleBytes + 32 * half + 64 * c);
          weights[2 * c] = _mm256_and_si256(bytes, low);
          weights[2 * c + 1] = _mm256_and_si256(_mm256_srli_epi16(bytes, kBits), low);
        }
        for (int r = 0; r < R; ++r) {
          const std::byte* group = rows[r].quantised + g * group_bytes(kBits);
          __m256i dots = broadcast_inputs(group + 4);
          for (int i = 0; i < 2 * kBits; ++i) {
            const __m256i x = broadcast_inputs(group + 8 + 4 * i);
            dots = kBits == 8 ? _mm256_dpwssd_avx_epi32(dots, weights[i], x)
                              : _mm256_dpbusd_avx_epi32(dots, weights[i], x);
          }
          sums[half][r] =
              _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(scales, broadcast(group)), sums[half][r]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      float out[kBlockOutputs];
      _mm256_storeu_ps(out, sums[0][r]);
      _mm256_storeu_ps(out + 8, sums[1][r]);
      store_outputs(out, output, count, rows[r], store);
    }
  }
};

#define TESSERA_AVX512_VNNI __attribute__((target("avx2,fma,f16c,avx512f,avx512vnni")))

// sums += weights x the four (8 bits: two) inputs at `from`, broadcast by the instruction itself: GCC 12 makes two of
// the intrinsic.
template <int kBits>
TESSERA_AVX512_VNNI __attribute__((always_inline)) inline void add_products(__m512i& sums, __m512i weights,
                                                                            const std::byte* from) {
  const int32_t& inputs = *reinterpret_cast<const int32_t*>(from);
  if constexpr (kBits == 8) {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(weights), "m"(inputs));
  } else {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(weights), "m"(inputs));
  }
}

TESSERA_AVX512_VNNI __attribute__((always_inline)) inline __m512 broadcast_16(const std::byte* from) {
  return _mm512_broadcastss_ps(_mm_load_ss(reinterpret_cast<const float*>(from)));
}

// The 16 outputs of a block are the 16 lanes; the rows' sums are independent chains, side by side.
struct Avx512Vnni {
  static constexpr int kTile = 8;

  template <int kBits, int R>
  TESSERA_AVX512_VNNI static void block_row(const WeightMatrix& w, int64_t output, int64_t count,
                                            const ProductRow* rows, Store store) {
    const int64_t across = num_blocks(w.inputs, kBlockInputs);
    const std::byte* block = w.data + output / kBlockOutputs * across * block_bytes(kBits);
    const __m512i low = _mm512_set1_epi32(kBits == 8 ? 0x00ff00ff : 0x0f0f0f0f);
    __m512 sums[R];
    const std::byte* groups[R];
    for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps(), groups[r] = rows[r].quantised;
    for (int64_t g = 0; g < across; ++g, block += block_bytes(kBits)) {
      const __m512 scales = _mm512_cvtph_ps(load_bytes(block));
      __m512i dots[R];
      for (int r = 0; r < R; ++r) dots[r] = _mm512_castps_si512(broadcast_16(groups[r] + 4));
      for (int c = 0; c < kBits; ++c) {
        const __m512i bytes = _mm512_loadu_si512(block + kScaleBytes + 64 * c);
        const __m512i even = _mm512_and_si512(bytes, low), odd = _mm512_and_si512(_mm512_srli_epi32(bytes, kBits), low);
        for (int r = 0; r < R; ++r) add_products<kBits>(dots[r], even, groups[r] + 8 + 8 * c);
        for (int r = 0; r < R; ++r) add_products<kBits>(dots[r], odd, groups[r] + 12 + 8 * c);
      }
      for (int r = 0; r < R; ++r) {
        const __m512 scale = _mm512_mul_ps(scales, broadcast_16(groups[r]));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sums[r]);
        groups[r] += group_bytes(kBits);
      }
    }
    const __mmask16 wanted = static_cast<__mmask16>((1u << count) - 1);
    for (int r = 0; r < R; ++r) {
      float* y = rows[r].y + output;
      if (store == Store::kAdd)
        sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(rows[r].scale), sums[r], _mm512_maskz_loadu_ps(wanted, y));
      _mm512_mask_storeu_ps(y, wanted, sums[r]);
    }
  }
};

// Tiles of 16 rows where rows and outputs are enough to be worth their packing; a CPU with AMX has AVX-512 VNNI for the
// others.
void multiply_by_amx(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  constexpr size_t kLeastRows = 2 * kAmxRows;
  constexpr int64_t kLeastOutputs = 8 * kBlockOutputs;
  const bool worth = rows.size() >= kLeastRows && end - begin >= kLeastOutputs;
  const size_t whole = worth ? rows.size() / kAmxRows * kAmxRows : 0;
  if (whole > 0) multiply_amx(w, begin, end, rows.first(whole), store);
  if (whole < rows.size()) multiply_by<Avx512Vnni>(w, begin, end, rows.subspan(whole), store);
}

template <int kBits>
TESSERA_AVX2 void quantise_row_avx2(const float* x, int64_t inputs, std::byte* out) {
  const int64_t whole = inputs / kBlockInputs * kBlockInputs;
  const float top = kBits == 8 ? 32767.0f : 127.0f;
  const __m256 magnitude_bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (int64_t begin = 0; begin < whole; begin += kBlockInputs, out += group_bytes(kBits)) {
    __m256 v[4];
    for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(x + begin + 8 * i);
    __m256 largest = _mm256_and_ps(v[0], magnitude_bits);
    for (int i = 1; i < 4; ++i) largest = _mm256_max_ps(largest, _mm256_and_ps(v[i], magnitude_bits));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float most = std::max(_mm_cvtss_f32(four), _mm_cvtss_f32(_mm_movehdup_ps(four)));
    const float scale = most / top;
    const __m256 inverse = _mm256_set1_ps(most >= kLeastActivation ? top / most : 0.0f);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    const __m256i total = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
    __m128i sum4 = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    sum4 = _mm_add_epi32(sum4, _mm_shuffle_epi32(sum4, 0x4e));
    sum4 = _mm_add_epi32(sum4, _mm_shuffle_epi32(sum4, 0xb1));
    const int32_t offset = _mm_cvtsi128_si32(_mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sum4, kBits - 1)));
    std::memcpy(out, &scale, 4);
    std::memcpy(out + 4, &offset, 4);
    // packs works in 128-bit halves; a permutation puts the groups of four back in order.
    const __m256i first = _mm256_packs_epi32(q[0], q[1]), second = _mm256_packs_epi32(q[2], q[3]);
    if constexpr (kBits == 8) {
      for (int half = 0; half < 2; ++half) {
        const __m256i ordered = _mm256_permute4x64_epi64(half ? second : first, 0xd8);
        const __m256i swapped = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(ordered, 0xd8), 0xd8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 + 32 * half), swapped);
      }
    } else {
      const __m256i packed =
          _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), packed);
    }
  }
  if (whole < inputs) ref::quantise_row(x + whole, inputs - whole, kBits == 8 ? WeightType::kQ8 : WeightType::kQ4, out);
}

}  // namespace

const std::vector<QuantisedWay>& quantised_ways() {
  static const std::vector<QuantisedWay> ways = [] {
    std::vector<QuantisedWay> found;
    const bool has_avx512_vnni = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512f");
    if (has_avx512_vnni && has_amx(multiply_by<Avx512Vnni>)) found.push_back({"amx-int8", multiply_by_amx});
    if (has_avx512_vnni) found.push_back({"avx512-vnni", multiply_by<Avx512Vnni>});
    if (__builtin_cpu_supports("avxvnni")) found.push_back({"avx-vnni", multiply_by<AvxVnni>});
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back({"avx2", multiply_by<Avx2>});
    found.push_back({"scalar", ref::multiply});
    return found;
  }();
  return ways;
}

void multiply_quantised(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                        Store store) {
  static const MultiplyQuantised fastest = quantised_ways()[0].multiply;
  fastest(w, begin, end, rows, store);
}

void quantise_row(const float* x, int64_t inputs, WeightType reader, std::byte* out) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (!has_avx2) return ref::quantise_row(x, inputs, reader, out);
  reader == WeightType::kQ8 ? quantise_row_avx2<8>(x, inputs, out) : quantise_row_avx2<4>(x, inputs, out);
}

}  // namespace tessera
