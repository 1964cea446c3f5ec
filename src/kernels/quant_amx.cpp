#include "kernels/quant_amx.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of GCC 12's own header (its bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace tessera {
namespace {

#define TESSERA_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw")))

// Tiles 0 to 3: sums, 16 rows x 16 outputs, i32. 4 and 5: activations, 16 rows x 32 inputs, a byte each. 6: weights, 8
// fours of inputs x 16 outputs, a byte each, as a block of the file has them.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 32, 32, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 8};
};
constexpr int kActivations = 4, kWeights = 6;
constexpr TileConfig kConfig;
// What a product asks of its three tiles.
static_assert(kConfig.rows[0] == kConfig.rows[kActivations] && kConfig.row_bytes[0] == kConfig.row_bytes[kWeights] &&
              kConfig.row_bytes[kActivations] / 4 == kConfig.rows[kWeights]);

struct Hardware {
  // Of the calling thread. Released when done: tiles in use make every switch of threads dearer.
  static void configure(const TileConfig& config = kConfig) { asm volatile("ldtilecfg %0" : : "m"(config)); }
  static void release() { asm volatile("tilerelease"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  static void load(const std::byte* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(int32_t* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  // sums += activations (signed or not) x weights (never signed)
  template <int kSums, int kFrom, bool kSigned>
  static void multiply() {
    if constexpr (kSigned) {
      asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kFrom), "i"(kWeights));
    } else {
      asm volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kFrom), "i"(kWeights));
    }
  }
};

struct Software {
  static inline thread_local std::byte tiles[8][16][64];
  static constexpr const TileConfig& config = kConfig;

  static void configure() { std::memset(tiles, 0, sizeof tiles); }
  static void release() {}
  template <int kTile>
  static void zero() {
    std::memset(tiles[kTile], 0, sizeof tiles[kTile]);
  }
  template <int kTile>
  static void load(const std::byte* from, int64_t stride) {
    zero<kTile>();
    for (int r = 0; r < config.rows[kTile]; ++r)
      std::memcpy(tiles[kTile][r], from + r * stride, config.row_bytes[kTile]);
  }
  template <int kTile>
  static void store(int32_t* to, int64_t stride) {
    for (int r = 0; r < config.rows[kTile]; ++r)
      std::memcpy(reinterpret_cast<std::byte*>(to) + r * stride, tiles[kTile][r], config.row_bytes[kTile]);
  }
  template <int kSums, int kFrom, bool kSigned>
  static void multiply() {
    for (int m = 0; m < config.rows[kSums]; ++m) {
      for (int k = 0; k < config.row_bytes[kFrom] / 4; ++k) {
        for (int n = 0; n < config.row_bytes[kSums] / 4; ++n) {
          int32_t sum;
          std::memcpy(&sum, &tiles[kSums][m][4 * n], 4);
          for (int i = 0; i < 4; ++i) {
            const int x = static_cast<int>(tiles[kFrom][m][4 * k + i]),
                      w = static_cast<int>(tiles[kWeights][k][4 * n + i]);
            sum += (kSigned ? static_cast<int8_t>(x) : x) * w;
          }
          std::memcpy(&tiles[kSums][m][4 * n], &sum, 4);
        }
      }
    }
  }
};

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
      Tiles::template multiply<kSums, kActivations, kBits == 4>();
      Tiles::template store<kSums>(&sums[t][0][0][0], 64);
      if constexpr (kPlanes == 2) {
        Tiles::template zero<kSums + 1>();
        Tiles::template load<kActivations + 1>(planes + Activations::kPlaneBytes, kBlockInputs);
        Tiles::template multiply<kSums + 1, kActivations + 1, true>();
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
  const struct Session {
    Session() { Tiles::configure(); }
    ~Session() { Tiles::release(); }
  } session;
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

bool cpu_has_amx_int8() {  // not every compiler's __builtin_cpu_supports knows the name
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kTile) && (edx & kInt8);
}

// Linux gives the tiles' state to processes that ask for it (arch_prctl(2)); the answer holds for all of their threads.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
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
    if (seconds(multiply_on<Hardware>, found) > others || found != expected) return false;
  }
  return true;
}

}  // namespace

bool has_amx(MultiplyQuantised other) {
  static const bool found = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            cpu_has_amx_int8() && may_use_tiles() && trial_agrees(other);
  return found;
}

void multiply_amx(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  multiply_on<Hardware>(w, begin, end, rows, store);
}

void multiply_amx_in_software(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                              Store store) {
  multiply_on<Software>(w, begin, end, rows, store);
}

int64_t amx_rounds(int64_t rounds) {
  static constexpr TileConfig full = {.row_bytes = {64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16}};
  Hardware::configure(full);
  Hardware::zero<0>(), Hardware::zero<1>(), Hardware::zero<2>(), Hardware::zero<3>();
  Hardware::zero<kActivations>(), Hardware::zero<kWeights>();
  for (int64_t i = 0; i < rounds; ++i) {
    Hardware::multiply<0, kActivations, true>(), Hardware::multiply<1, kActivations, true>();
    Hardware::multiply<2, kActivations, true>(), Hardware::multiply<3, kActivations, true>();
  }
  Hardware::release();
  return rounds * 4 * 16 * 16 * 64;
}

}  // namespace tessera
