#include "core/dequantize.h"

#include <array>

#include "base/float_bits.h"
#include "base/load.h"

namespace tessera {
namespace {

float load_f16(const std::byte* at) { return float_from_f16(load<uint16_t>(at)); }
int load_u8(const std::byte* at) { return static_cast<int>(*at); }
int load_i8(const std::byte* at) { return load<int8_t>(at); }
int low(const std::byte* at) { return static_cast<int>(*at & std::byte{15}); }
int high(const std::byte* at) { return static_cast<int>(*at >> 4); }

void dequantize_f32(const std::byte* x, float* y) { *y = load<float>(x); }
void dequantize_f16(const std::byte* x, float* y) { *y = load_f16(x); }
void dequantize_bf16(const std::byte* x, float* y) { *y = float_from_bf16(load<uint16_t>(x)); }

// d f16, q i8[32]: y = d q
void dequantize_q8_0(const std::byte* x, float* y) {
  const float d = load_f16(x);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(load_i8(x + 2 + i));
}

// d f16, 16 bytes with elements i (low) and i + 16 (high): y = d (q - 8)
void dequantize_q4_0(const std::byte* x, float* y) {
  const float d = load_f16(x);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(x + 2 + i) - 8);
    y[i + 16] = d * static_cast<float>(high(x + 2 + i) - 8);
  }
}

// d f16, m f16, 16 bytes like Q4_0: y = d q + m
void dequantize_q4_1(const std::byte* x, float* y) {
  const float d = load_f16(x), m = load_f16(x + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(x + 4 + i)) + m;
    y[i + 16] = d * static_cast<float>(high(x + 4 + i)) + m;
  }
}

// Q4_K and Q5_K: eight groups of 32 with 6-bit scales and minima, packed in 12 bytes. The first four of each have
// bytes 0-3 and 4-7 for themselves; the last four have the nibbles of bytes 8-11 and those bytes' upper two bits.
struct ScaleMin {
  float scale, min;
};
ScaleMin scale_min_of_group(const std::byte* packed, int group) {
  if (group < 4)
    return {static_cast<float>(load_u8(packed + group) & 63), static_cast<float>(load_u8(packed + group + 4) & 63)};
  return {static_cast<float>(low(packed + group + 4) | (load_u8(packed + group - 4) >> 6) << 4),
          static_cast<float>(high(packed + group + 4) | (load_u8(packed + group) >> 6) << 4)};
}

// d f16, dmin f16, scales[12], 128 bytes; 32 bytes hold group 2j (low) and 2j + 1 (high): y = d scale q - dmin min
void dequantize_q4_k(const std::byte* x, float* y) {
  const float d = load_f16(x), dmin = load_f16(x + 2);
  for (int group = 0; group < 8; ++group) {
    const auto [scale, min] = scale_min_of_group(x + 4, group);
    const std::byte* q = x + 16 + group / 2 * 32;
    for (int i = 0; i < 32; ++i)
      *y++ = d * scale * static_cast<float>(group % 2 ? high(q + i) : low(q + i)) - dmin * min;
  }
}

// The same with a fifth bit: byte i of qh[32] has it for element i of group g at bit g.
void dequantize_q5_k(const std::byte* x, float* y) {
  const float d = load_f16(x), dmin = load_f16(x + 2);
  for (int group = 0; group < 8; ++group) {
    const auto [scale, min] = scale_min_of_group(x + 4, group);
    const std::byte *qh = x + 16, *q = x + 48 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int fifth = (load_u8(qh + i) >> group & 1) << 4;
      *y++ = d * scale * static_cast<float>((group % 2 ? high(q + i) : low(q + i)) + fifth) - dmin * min;
    }
  }
}

// ql[128], qh[64], scales i8[16] of 16 elements each, d f16: y = d scale (q - 32). Each half of 128 elements takes 64
// bytes of ql and 32 of qh: elements i and i + 32 have the low nibbles, i + 64 and i + 96 the high ones.
void dequantize_q6_k(const std::byte* x, float* y) {
  const float d = load_f16(x + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte *ql = x + 64 * half, *qh = x + 128 + 32 * half, *scales = x + 192 + 8 * half;
    for (int i = 0; i < 128; ++i) {
      const int quarter = i / 32, column = i % 32;
      const std::byte* nibbles = ql + column + 32 * (quarter % 2);
      const int q = (quarter < 2 ? low(nibbles) : high(nibbles)) | (load_u8(qh + column) >> 2 * quarter & 3) << 4;
      *y++ = d * static_cast<float>(load_i8(scales + i / 16)) * static_cast<float>(q - 32);
    }
  }
}

constexpr std::array<BlockFormat, 9> kFormats{{
    {"F32", 0, 1, 4, dequantize_f32},
    {"F16", 1, 1, 2, dequantize_f16},
    {"BF16", 30, 1, 2, dequantize_bf16},
    {"Q8_0", 8, 32, 34, dequantize_q8_0},
    {"Q4_0", 2, 32, 18, dequantize_q4_0},
    {"Q4_1", 3, 32, 20, dequantize_q4_1},
    {"Q4_K", 12, 256, 144, dequantize_q4_k},
    {"Q5_K", 13, 256, 176, dequantize_q5_k},
    {"Q6_K", 14, 256, 210, dequantize_q6_k},
}};

}  // namespace

const BlockFormat* find_format(uint32_t ggml_type) {
  for (const BlockFormat& format : kFormats) {
    if (format.ggml_type == ggml_type) return &format;
  }
  return nullptr;
}

const BlockFormat* find_format(std::string_view name) {
  for (const BlockFormat& format : kFormats) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

std::string ggml_type_name(uint32_t ggml_type) {
  constexpr std::array<std::string_view, 40> kNames{
      "F32",    "F16",   "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",    "Q8_1",
      "Q2_K",   "Q3_K",  "Q4_K",  "Q5_K",   "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
      "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",     "I64",    "F64",     "IQ1_M",
      "BF16",   "",      "",      "",       "TQ1_0", "TQ2_0", "",        "",       "",        "MXFP4"};
  if (ggml_type < kNames.size() && !kNames[ggml_type].empty()) return std::string(kNames[ggml_type]);
  return "number " + std::to_string(ggml_type);
}

std::string supported_formats() {
  std::string names;
  for (const BlockFormat& format : kFormats) names.append(names.empty() ? "" : ", ").append(format.name);
  return names;
}

void dequantize(const BlockFormat& format, const std::byte* bytes, int64_t num_elements, float* out) {
  for (int64_t i = 0; i < num_elements; i += format.block_size, bytes += format.block_bytes)
    format.dequantize(bytes, out + i);
}

}  // namespace tessera
