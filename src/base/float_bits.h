// The two 16-bit floating-point formats as bits: IEEE 754 half precision (f16) and bfloat16 (the upper half of a
// float).
#pragma once
#include <bit>
#include <cstdint>

namespace tessera {

inline float float_from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline float float_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, rest = bits & 0x7FFF;
  if (rest >= 0x7C00) return std::bit_cast<float>(sign | 0x7F800000 | (rest & 0x3FF) << 13);  // infinite or NaN
  if (rest >= 0x0400) return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));      // exponent bias 15 -> 127
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(rest) * 0x1p-24f));  // subnormal
}

// Rounded to nearest, ties to even; above the largest number: infinite.
inline uint16_t bf16_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline uint16_t f16_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
  if (rest > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);   // NaN
  if (rest >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // 65,520 and above round to infinity
  if (rest < 0x38800000) {  // below 2^-14: a sum with 0.5 leaves the multiple of 2^-24 in the low bits, rounded
    const float sum = std::bit_cast<float>(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000));
  }
  return static_cast<uint16_t>(sign | ((rest + 0xFFF + (rest >> 13 & 1) - (112u << 23)) >> 13));
}

}  // namespace tessera
