// Tiles of AMX (Intel's Software Developer's Manual, volume 1, chapter 18): the instructions, and tiles in software
// that do what they do, so that the code around them runs on any CPU.
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tessera {

// The operand of LDTILECFG, palette 1.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The shapes of sums [m, n], a [m, k] and b [k, n] fit, counted in 4 bytes.
template <const TileConfig& config, int kSums, int kA, int kB>
constexpr bool kShapesFit = config.rows[kSums] == config.rows[kA] && config.row_bytes[kSums] == config.row_bytes[kB] &&
                            config.row_bytes[kA] / 4 == config.rows[kB] && kSums != kA&& kA != kB&& kSums != kB;

template <const TileConfig& config>
struct HardwareTiles {
  // Of the calling thread. Released when done: tiles in use make every switch of threads dearer.
  static void configure() { asm volatile("ldtilecfg %0" : : "m"(config)); }
  static void release() { asm volatile("tilerelease"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  // sums, i32 [m, n] += a, bytes [m, 4 k], signed or not, x b, bytes [k, 4 n], never signed.
  template <int kSums, int kA, int kB, bool kSigned>
  static void multiply_bytes() {
    static_assert(kShapesFit<config, kSums, kA, kB>);
    if constexpr (kSigned) {
      asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
    } else {
      asm volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
    }
  }
  // sums, f32 [m, n] += a, bf16 [m, 2 k], x b, bf16 [k, 2 n].
  template <int kSums, int kA, int kB>
  static void multiply_bf16() {
    static_assert(kShapesFit<config, kSums, kA, kB>);
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
};

template <const TileConfig& config>
struct SoftwareTiles {
  static inline thread_local std::byte tiles[8][16][64];

  static void configure() { std::memset(tiles, 0, sizeof tiles); }
  static void release() {}
  template <int kTile>
  static void zero() {
    std::memset(tiles[kTile], 0, sizeof tiles[kTile]);
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    zero<kTile>();
    for (int r = 0; r < config.rows[kTile]; ++r)
      std::memcpy(tiles[kTile][r], static_cast<const std::byte*>(from) + r * stride, config.row_bytes[kTile]);
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    for (int r = 0; r < config.rows[kTile]; ++r)
      std::memcpy(static_cast<std::byte*>(to) + r * stride, tiles[kTile][r], config.row_bytes[kTile]);
  }
  template <int kSums, int kA, int kB, bool kSigned>
  static void multiply_bytes() {
    for_each_sum<int32_t, kSums>([](int m, int n, int32_t& sum) {
      for (int k = 0; k < config.row_bytes[kA] / 4; ++k) {
        for (int i = 0; i < 4; ++i) {
          const int a = static_cast<int>(tiles[kA][m][4 * k + i]), b = static_cast<int>(tiles[kB][k][4 * n + i]);
          sum += (kSigned ? static_cast<int8_t>(a) : a) * b;
        }
      }
    });
  }
  // The first and the second of each pair are summed apart, as the instruction does (its zeros for numbers below
  // 2^-126 are left out).
  template <int kSums, int kA, int kB>
  static void multiply_bf16() {
    for_each_sum<float, kSums>([](int m, int n, float& sum) {
      float halves[2] = {};
      for (int k = 0; k < config.row_bytes[kA] / 4; ++k) {
        for (int i = 0; i < 2; ++i) {
          const auto value = [i](const std::byte* pair) {
            uint16_t bits;
            std::memcpy(&bits, pair + 2 * i, 2);
            return std::bit_cast<float>(uint32_t{bits} << 16);
          };
          halves[i] = std::fma(value(&tiles[kA][m][4 * k]), value(&tiles[kB][k][4 * n]), halves[i]);
        }
      }
      sum += halves[0] + halves[1];
    });
  }

 private:
  template <class T, int kSums, class Body>
  static void for_each_sum(const Body& add) {
    for (int m = 0; m < config.rows[kSums]; ++m) {
      for (int n = 0; n < config.row_bytes[kSums] / 4; ++n) {
        T sum;
        std::memcpy(&sum, &tiles[kSums][m][4 * n], 4);
        add(m, n, sum);
        std::memcpy(&tiles[kSums][m][4 * n], &sum, 4);
      }
    }
  }
};

template <class Tiles>
struct TileSession {
  TileSession() { Tiles::configure(); }
  ~TileSession() { Tiles::release(); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;
};

// The CPU has the tiles and what computes on them, AVX-512 (F, BW) too, and the system lets this process use them.
enum class TileArithmetic { kInt8, kBF16 };
bool cpu_has_tiles(TileArithmetic arithmetic);

}  // namespace tessera
