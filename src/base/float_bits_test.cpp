#include "base/float_bits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tessera {
namespace {

TEST(FloatBitsTest, F16KnownNumbers) {
  const std::pair<uint16_t, float> known[] = {{0x0000, 0.0f},       {0x3C00, 1.0f},        {0xC000, -2.0f},
                                              {0x7BFF, 65504.0f},   {0x3555, 0.33325195f}, {0x0400, 0x1p-14f},
                                              {0x03FF, 0x3FFp-24f}, {0x0001, 0x1p-24f},    {0x8001, -0x1p-24f}};
  for (const auto& [bits, value] : known) {
    EXPECT_EQ(float_from_f16(bits), value) << bits;
    EXPECT_EQ(f16_from_float(value), bits) << value;
  }
  EXPECT_EQ(float_from_f16(0x7C00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(float_from_f16(0x7E01)));
  EXPECT_TRUE(std::signbit(float_from_f16(0x8000)));
}

TEST(FloatBitsTest, EveryNumberComesBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (!std::isnan(float_from_f16(half))) EXPECT_EQ(f16_from_float(float_from_f16(half)), half);
    if (!std::isnan(float_from_bf16(half))) EXPECT_EQ(bf16_from_float(float_from_bf16(half)), half);
  }
}

TEST(FloatBitsTest, RoundsToNearestEven) {
  EXPECT_EQ(f16_from_float(1.0f + 0x1p-11f), 0x3C00);             // half-way: to even
  EXPECT_EQ(f16_from_float(1.0f + 3 * 0x1p-11f), 0x3C02);         // half-way: to even
  EXPECT_EQ(f16_from_float(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);  // above half-way
  EXPECT_EQ(f16_from_float(0x1p-25f), 0x0000);
  EXPECT_EQ(f16_from_float(0x1.8p-24f), 0x0002);
  EXPECT_EQ(f16_from_float(65519.0f), 0x7BFF);
  EXPECT_EQ(f16_from_float(65520.0f), 0x7C00);
  EXPECT_EQ(f16_from_float(-1e30f), 0xFC00);
  EXPECT_TRUE(std::isnan(float_from_f16(f16_from_float(NAN))));
  EXPECT_EQ(bf16_from_float(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(bf16_from_float(1.0f + 3 * 0x1p-8f), 0x3F82);
  EXPECT_EQ(bf16_from_float(3.4e38f), 0x7F80);
  EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(std::bit_cast<float>(0x7F800001u)))));
}

}  // namespace
}  // namespace tessera
