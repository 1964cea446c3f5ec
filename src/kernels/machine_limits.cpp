#include "kernels/machine_limits.h"

#include <immintrin.h>

#include "kernels/quant_amx.h"
#include "kernels/quant_matvec.h"

namespace tessera {
namespace {

constexpr int kSums = 10;  // independent chains: more than latency times throughput

// `steps` steps of SUM = STEP(SUM, x) on each chain. The empty assembler makes x a new value to the compiler, so that
// no step can be left out.
#define TESSERA_ROUNDS(NAME, TARGET, VECTOR, STEP, MACS)                              \
  __attribute__((target(TARGET))) int64_t NAME(int64_t rounds, VECTOR x) {            \
    VECTOR sums[kSums];                                                               \
    _Pragma("GCC unroll 16") for (VECTOR & sum : sums) sum = x;                       \
    for (int64_t i = 0; i < rounds; ++i) {                                            \
      _Pragma("GCC unroll 16") for (VECTOR & sum : sums) {                            \
        asm volatile("" : "+x"(x));                                                   \
        sum = STEP;                                                                   \
      }                                                                               \
    }                                                                                 \
    _Pragma("GCC unroll 16") for (VECTOR & sum : sums) asm volatile("" : : "x"(sum)); \
    return rounds * kSums * MACS;                                                     \
  }
TESSERA_ROUNDS(f32_rounds, "avx2,fma", __m256, _mm256_fmadd_ps(x, x, sum), 8)
TESSERA_ROUNDS(f32_avx512_rounds, "avx512f", __m512, _mm512_fmadd_ps(x, x, sum), 16)
TESSERA_ROUNDS(maddubs_rounds, "avx2", __m256i, _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), x)),
               32)
TESSERA_ROUNDS(avx_vnni_rounds, "avx2,avxvnni", __m256i, _mm256_dpbusd_avx_epi32(sum, x, x), 32)
TESSERA_ROUNDS(avx512_vnni_rounds, "avx512f,avx512vnni", __m512i, _mm512_dpbusd_epi32(sum, x, x), 64)

}  // namespace

int64_t multiply_add_rounds(Arithmetic arithmetic, int64_t rounds) {
  const std::string_view way = quantised_ways()[0].name;
  if (way == "scalar") return 0;
  if (arithmetic == Arithmetic::kF32)
    return __builtin_cpu_supports("avx512f") ? f32_avx512_rounds(rounds, __m512{}) : f32_rounds(rounds, __m256{});
  return way == "amx-int8"      ? amx_rounds(rounds)
         : way == "avx512-vnni" ? avx512_vnni_rounds(rounds, __m512i{})
         : way == "avx-vnni"    ? avx_vnni_rounds(rounds, __m256i{})
                                : maddubs_rounds(rounds, __m256i{});
}

__attribute__((target_clones("avx2", "default"))) uint64_t read_bytes(std::span<const std::byte> bytes) {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(bytes.data());
  const size_t count = bytes.size() / sizeof *words;
  uint64_t sums[16] = {};
  for (size_t i = 0; i + 16 <= count; i += 16) {
    for (size_t j = 0; j < 16; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace tessera
