#include "core/dequantize.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/float_bits.h"

namespace tessera {
namespace {

// The numbers of one block.
std::vector<float> numbers(const char* format, const std::string& block) {
  const BlockFormat* f = find_format(std::string_view(format));
  EXPECT_EQ(block.size(), static_cast<size_t>(f->block_bytes)) << format;
  std::vector<float> out(static_cast<size_t>(f->block_size));
  dequantize(*f, reinterpret_cast<const std::byte*>(block.data()), f->block_size, out.data());
  return out;
}

std::string f16(float value) {
  const uint16_t bits = f16_from_float(value);
  return {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
}
std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int v : values) out += static_cast<char>(v);
  return out;
}

TEST(DequantizeTest, PlainTypes) {
  EXPECT_EQ(numbers("F32", bytes({0, 0, 0xC0, 0xBF})), std::vector<float>{-1.5f});
  EXPECT_EQ(numbers("F16", f16(-1.5f)), std::vector<float>{-1.5f});
  EXPECT_EQ(numbers("BF16", bytes({0xC0, 0xBF})), std::vector<float>{-1.5f});
}

TEST(DequantizeTest, EightBits) {
  std::string block = f16(0.5f);
  for (int i = 0; i < 32; ++i) block += static_cast<char>(i - 16);
  const std::vector<float> y = numbers("Q8_0", block);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(y[static_cast<size_t>(i)], 0.5f * static_cast<float>(i - 16));
}

TEST(DequantizeTest, FourBits) {
  std::string nibbles;
  for (int i = 0; i < 16; ++i) nibbles += static_cast<char>(i | (15 - i) << 4);  // i below, 15 - i above
  const std::vector<float> q4_0 = numbers("Q4_0", f16(2.0f) + nibbles);
  const std::vector<float> q4_1 = numbers("Q4_1", f16(2.0f) + f16(-3.0f) + nibbles);
  for (size_t i = 0; i < 16; ++i) {
    const auto low = static_cast<float>(i), high = static_cast<float>(15 - i);
    EXPECT_EQ(q4_0[i], 2 * (low - 8));
    EXPECT_EQ(q4_0[i + 16], 2 * (high - 8));
    EXPECT_EQ(q4_1[i], 2 * low - 3);
    EXPECT_EQ(q4_1[i + 16], 2 * high - 3);
  }
}

// Scales 1, 2, 3, 4, 17, 34, 51, 60 and minima 5, 6, 7, 8, 49, 33, 18, 63 in the 12 packed bytes.
const std::string kScales =
    bytes({1 | 0x40, 2 | 0x80, 3 | 0xC0, 4 | 0xC0, 5 | 0xC0, 6 | 0x80, 7 | 0x40, 8 | 0xC0, 0x11, 0x12, 0x23, 0xFC});
constexpr float kScale[] = {1, 2, 3, 4, 17, 34, 51, 60}, kMin[] = {5, 6, 7, 8, 49, 33, 18, 63};

TEST(DequantizeTest, FourAndFiveBitsWithGroupScales) {
  std::string nibbles;
  for (int i = 0; i < 128; ++i) nibbles += static_cast<char>((i % 16) | ((i + 3) % 16) << 4);
  const std::vector<float> q4 = numbers("Q4_K", f16(0.5f) + f16(0.25f) + kScales + nibbles);
  std::string fifth;
  for (int i = 0; i < 32; ++i) fifth += static_cast<char>(i % 2 ? 0xA5 : 0x3C);
  const std::vector<float> q5 = numbers("Q5_K", f16(0.5f) + f16(0.25f) + kScales + fifth + nibbles);
  for (size_t group = 0; group < 8; ++group) {
    for (size_t i = 0; i < 32; ++i) {
      const size_t byte = group / 2 * 32 + i;
      const size_t q = (group % 2 ? byte + 3 : byte) % 16, bit = (i % 2 ? 0xA5 : 0x3C) >> group & 1;
      const float scale = 0.5f * kScale[group], min = 0.25f * kMin[group];
      EXPECT_EQ(q4[32 * group + i], scale * static_cast<float>(q) - min) << group << " " << i;
      EXPECT_EQ(q5[32 * group + i], scale * static_cast<float>(q + 16 * bit) - min) << group << " " << i;
    }
  }
}

TEST(DequantizeTest, SixBits) {
  std::string low, high, scales;
  for (int i = 0; i < 128; ++i) low += static_cast<char>((i * 7) & 255);
  for (int i = 0; i < 64; ++i) high += static_cast<char>((i * 5 + 1) & 255);
  for (int i = 0; i < 16; ++i) scales += static_cast<char>(i % 2 ? -i : i + 1);
  const std::vector<float> y = numbers("Q6_K", low + high + scales + f16(0.25f));
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128, quarter = i % 128 / 32, column = i % 32;
    const size_t byte = (64 * half + column + 32 * (quarter % 2)) * 7, bits = ((32 * half + column) * 5 + 1) & 255;
    const size_t q = (quarter < 2 ? byte & 15 : (byte & 255) >> 4) | (bits >> 2 * quarter & 3) << 4;
    const size_t group = i / 16;
    const float scale = 0.25f * (group % 2 ? -static_cast<float>(group) : static_cast<float>(group + 1));
    EXPECT_EQ(y[i], scale * (static_cast<float>(q) - 32)) << i;
  }
}

TEST(DequantizeTest, FormatsByNameAndNumber) {
  EXPECT_EQ(find_format(uint32_t{14})->name, "Q6_K");
  EXPECT_EQ(find_format(std::string_view("Q4_1"))->ggml_type, 3u);
  for (const uint32_t unknown : {4u, 10u, 31u, 99u, UINT32_MAX}) EXPECT_EQ(find_format(unknown), nullptr) << unknown;
  EXPECT_EQ(find_format(std::string_view("Q2_K")), nullptr);
  EXPECT_EQ(ggml_type_name(10), "Q2_K");
  EXPECT_EQ(ggml_type_name(30), "BF16");
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(ggml_type_name(4), "number 4");
  EXPECT_EQ(ggml_type_name(1000), "number 1000");
  EXPECT_NE(supported_formats().find("Q5_K"), std::string::npos);
}

}  // namespace
}  // namespace tessera
