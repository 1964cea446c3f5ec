// Every way to multiply against the scalar twin, at odd sizes, on every target that this CPU has.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/float_bits.h"
#include "base/rng.h"
#include "hwy/targets.h"
#include "kernels/bf16_amx.h"
#include "kernels/matvec.h"
#include "kernels/quant_amx.h"
#include "kernels/quant_matvec.h"
#include "kernels/row_ops.h"

namespace tessera {
namespace {

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kBF16, WeightType::kF16, WeightType::kQ8,
                                 WeightType::kQ4};

std::vector<float> random_values(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(rng.normal());
  return values;
}

std::vector<std::byte> weights_of(WeightType type, int64_t outputs, int64_t inputs, uint64_t seed) {
  const std::vector<float> w = random_values(outputs * inputs, seed);
  std::vector<std::byte> bytes(static_cast<size_t>(matrix_bytes(type, outputs, inputs)));
  if (type == WeightType::kQ8 || type == WeightType::kQ4) {
    quantise_matrix(w.data(), outputs, inputs, type == WeightType::kQ8 ? 8 : 4, bytes.data());
    return bytes;
  }
  for (size_t i = 0; i < w.size(); ++i) {
    if (type == WeightType::kF32) {
      std::memcpy(&bytes[4 * i], &w[i], 4);
    } else {
      const uint16_t half = type == WeightType::kBF16 ? bf16_from_float(w[i]) : f16_from_float(w[i]);
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

struct Rows {
  std::vector<float> x, y;
  std::vector<std::byte> quantised;
  std::vector<ProductRow> rows;
  Rows(int64_t count, int64_t inputs, int64_t outputs, WeightType reader, uint64_t seed)
      : x(random_values(count * inputs, seed)),
        y(random_values(count * outputs, seed + 1)),
        quantised(static_cast<size_t>(count * quantised_row_bytes(inputs))) {
    for (int64_t r = 0; r < count; ++r) {
      std::byte* q = quantised.data() + r * quantised_row_bytes(inputs);
      quantise_row(x.data() + r * inputs, inputs, reader, q);
      rows.push_back({x.data() + r * inputs, q, y.data() + r * outputs, 0.5f + static_cast<float>(r)});
    }
  }
};

// Calls body once for each SIMD target of this CPU that the kernels are compiled for.
template <class Body>
void on_every_target(const Body& body) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(Matvec, EqualsTheScalarTwinAtOddSizes) {
  on_every_target([] {
    for (const WeightType type : kTypes) {
      for (const int64_t outputs : {1, 16, 17, 45}) {
        for (const int64_t inputs : {1, 31, 32, 77, 160}) {
          for (const int64_t count : {1, 2, 3, 4, 5, 7}) {
            const std::vector<std::byte> bytes = weights_of(type, outputs, inputs, 5);
            const WeightMatrix w = {bytes.data(), type, outputs, inputs};
            Rows a(count, inputs, outputs, type, 9), b(count, inputs, outputs, type, 9);
            for (const Store store : {Store::kSet, Store::kAdd}) {
              multiply(w, 0, outputs, a.rows, store);
              ref::multiply(w, 0, outputs, b.rows, store);
              for (size_t i = 0; i < a.y.size(); ++i) {
                if (w.is_quantised()) {
                  ASSERT_EQ(a.y[i], b.y[i]) << outputs << "x" << inputs << " rows " << count;
                } else {
                  ASSERT_NEAR(a.y[i], b.y[i], 1e-3) << outputs << "x" << inputs << " rows " << count;
                }
              }
            }
          }
        }
      }
    }
  });
}

TEST(Matvec, EveryQuantisedWayGivesTheSameBits) {
  for (const QuantisedWay& way : quantised_ways()) {
    SCOPED_TRACE(way.name);
    for (const WeightType type : {WeightType::kQ8, WeightType::kQ4}) {
      const std::vector<std::byte> bytes = weights_of(type, 50, 100, 3);
      const WeightMatrix w = {bytes.data(), type, 50, 100};
      for (const int64_t count :
           {1, 2, 3, 4, 5, 6, 7, 8, 15, 17, 33, 70}) {  // every tile of rows and what is left of it
        Rows a(count, 100, 50, type, 4), b(count, 100, 50, type, 4);
        way.multiply(w, 16, 50, a.rows, Store::kAdd);
        ref::multiply(w, 16, 50, b.rows, Store::kAdd);
        EXPECT_EQ(a.y, b.y) << count << " rows";
      }
    }
  }
}

// The code of the AMX way on tiles in software, wherever there is AVX-512: every byte a weight can be.
TEST(Matvec, TilesInSoftwareGiveTheSameBits) {
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) GTEST_SKIP() << "no AVX-512 here";
  for (const WeightType type : {WeightType::kQ8, WeightType::kQ4}) {
    std::vector<std::byte> bytes = weights_of(type, 50, 100, 3);
    Rng rng(7);
    const int64_t stride = block_bytes(type == WeightType::kQ8 ? 8 : 4);
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (static_cast<int64_t>(i) % stride >= 2 * kBlockOutputs) bytes[i] = static_cast<std::byte>(rng.below(256));
    }
    const WeightMatrix w = {bytes.data(), type, 50, 100};
    for (const int64_t count : {16, 32, 48, 80}) {
      for (const Store store : {Store::kSet, Store::kAdd}) {
        Rows a(count, 100, 50, type, 4), b(count, 100, 50, type, 4);
        multiply_amx_in_software(w, 16, 50, a.rows, store);
        ref::multiply(w, 16, 50, b.rows, store);
        EXPECT_EQ(a.y, b.y) << count << " rows";
      }
    }
  }
}

// bf16 weights on tiles in software: as exact as f32, and a result depends on its row and its output alone.
TEST(Matvec, TilesOfBF16InSoftwareAreNearTheTwin) {
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) GTEST_SKIP() << "no AVX-512 here";
  for (const int64_t inputs : {1, 32, 77, 160}) {
    for (const int64_t outputs : {1, 16, 27, 45}) {
      const std::vector<std::byte> bytes = weights_of(WeightType::kBF16, outputs, inputs, 5);
      const WeightMatrix w = {bytes.data(), WeightType::kBF16, outputs, inputs};
      for (const Store store : {Store::kSet, Store::kAdd}) {
        Rows a(37, inputs, outputs, w.type, 9), b(37, inputs, outputs, w.type, 9),
            alone(37, inputs, outputs, w.type, 9);
        multiply_bf16_amx_in_software(w, 0, outputs, a.rows, store);
        ref::multiply(w, 0, outputs, b.rows, store);
        for (size_t i = 0; i < a.y.size(); ++i) {
          const double scale = store == Store::kSet ? 1 : a.rows[i / static_cast<size_t>(outputs)].scale;
          ASSERT_NEAR(a.y[i], b.y[i], 2e-6 * scale * std::sqrt(static_cast<double>(inputs)) + 1e-6);
        }
        for (const ProductRow& row : alone.rows) {
          for (int64_t o = 0; o < outputs; o += 7)
            multiply_bf16_amx_in_software(w, o, std::min(o + 7, outputs), {&row, 1}, store);
        }
        EXPECT_EQ(a.y, alone.y);
      }
    }
  }
}

TEST(Matvec, ManyLongRowsPassInPieces) {  // more than a first-level cache holds
  for (const WeightType type : {WeightType::kQ8, WeightType::kQ4}) {
    const std::vector<std::byte> bytes = weights_of(type, 33, 1600, 3);
    const WeightMatrix w = {bytes.data(), type, 33, 1600};
    Rows a(21, 1600, 33, type, 4), b(21, 1600, 33, type, 4);
    multiply(w, 0, 33, a.rows, Store::kAdd);
    ref::multiply(w, 0, 33, b.rows, Store::kAdd);
    EXPECT_EQ(a.y, b.y);
  }
}

TEST(Matvec, ExtremeQuantisedValuesDontOverflow) {
  // Every weight and activation at its largest size: the cells are written by hand, at scale 1.
  for (const WeightType type : {WeightType::kQ8, WeightType::kQ4}) {
    const int bits = type == WeightType::kQ8 ? 8 : 4;
    for (const bool largest : {true, false}) {
      const float weight = bits == 8 ? (largest ? 127.0f : -127.0f) : (largest ? 7.0f : -8.0f);
      std::vector<std::byte> bytes(static_cast<size_t>(matrix_bytes(type, 16, 64)));
      for (int64_t block = 0; block < 2; ++block) {
        std::byte* at = bytes.data() + block * block_bytes(bits);
        const uint16_t one = f16_from_float(1.0f);
        for (int o = 0; o < kBlockOutputs; ++o) std::memcpy(at + 2 * o, &one, 2);
        const std::byte cell{static_cast<uint8_t>(bits == 8 ? (largest ? 255 : 1) : (largest ? 0xff : 0x00))};
        std::fill(at + 2 * kBlockOutputs, at + block_bytes(bits), cell);
      }
      const WeightMatrix matrix = {bytes.data(), type, 16, 64};
      for (const float x_each : {1.0f, -1.0f}) {
        const std::vector<float> x(64, x_each);
        std::vector<float> y(16), expected(16);
        std::vector<std::byte> quantised(static_cast<size_t>(quantised_row_bytes(64)));
        quantise_row(x.data(), 64, type, quantised.data());
        const ProductRow row = {x.data(), quantised.data(), expected.data(), 1.0f};
        ref::multiply(matrix, 0, 16, {&row, 1}, Store::kSet);
        EXPECT_NEAR(expected[3], 64 * weight * x_each, 1e-2);
        for (const QuantisedWay& way : quantised_ways()) {
          const ProductRow same = {x.data(), quantised.data(), y.data(), 1.0f};
          way.multiply(matrix, 0, 16, {&same, 1}, Store::kSet);
          EXPECT_EQ(y, expected) << way.name;
        }
      }
    }
  }
}

TEST(Matvec, AWeightThatIsNotANumberIsNotLost) {  // the engine refuses such a model; zeros would hide it
  std::vector<float> w(32, 1.0f), row(32);
  w[5] = INFINITY;
  std::vector<std::byte> bytes(static_cast<size_t>(matrix_bytes(WeightType::kQ8, 1, 32)));
  quantise_matrix(w.data(), 1, 32, 8, bytes.data());
  copy_weight_row({bytes.data(), WeightType::kQ8, 1, 32}, 0, row.data());
  EXPECT_FALSE(std::isfinite(row[5]));
}

TEST(Matvec, ARowDoesNotDependOnItsNeighboursOrTheRange) {
  on_every_target([&] {
    for (const WeightType type : kTypes) {
      for (const Store store : {Store::kSet, Store::kAdd}) {
        const std::vector<std::byte> bytes = weights_of(type, 45, 77, 1);  // the last tiles are single outputs
        const WeightMatrix w = {bytes.data(), type, 45, 77};
        Rows together(8, 77, 45, type, 2), alone(8, 77, 45, type, 2);  // tiles of 3, 3 and 2 rows
        multiply(w, 0, 45, together.rows, store);
        for (const ProductRow& row : alone.rows) {
          multiply(w, 0, 16, {&row, 1}, store);
          multiply(w, 16, 45, {&row, 1}, store);
        }
        EXPECT_EQ(together.y, alone.y);
      }
    }
  });
}

TEST(Matvec, QuantisedRowsEqualTheTwin) {
  for (const WeightType reader : {WeightType::kQ8, WeightType::kQ4}) {
    for (const int64_t inputs : {1, 32, 33, 96, 100}) {
      for (const float scale : {1.0f, 0.0f, 1e-31f, 1e30f}) {
        std::vector<float> x = random_values(inputs, 8);
        for (float& v : x) v *= scale;
        std::vector<std::byte> a(static_cast<size_t>(quantised_row_bytes(inputs))), b(a.size());
        quantise_row(x.data(), inputs, reader, a.data());
        ref::quantise_row(x.data(), inputs, reader, b.data());
        EXPECT_EQ(a, b);
      }
    }
  }
}

TEST(Matvec, QuantisationIsNear) {
  const std::vector<float> w = random_values(40 * 70, 6);
  for (const auto& [type, bits, most] : {std::tuple(WeightType::kQ8, 8, 0.02), std::tuple(WeightType::kQ4, 4, 0.3)}) {
    std::vector<std::byte> bytes(static_cast<size_t>(matrix_bytes(type, 40, 70)));
    quantise_matrix(w.data(), 40, 70, bits, bytes.data());
    const WeightMatrix matrix = {bytes.data(), type, 40, 70};
    std::vector<float> row(70);
    for (int64_t o = 0; o < 40; ++o) {
      copy_weight_row(matrix, o, row.data());
      for (int64_t i = 0; i < 70; ++i) {
        EXPECT_NEAR(row[static_cast<size_t>(i)], w[static_cast<size_t>(o * 70 + i)], most);
        EXPECT_EQ(row[static_cast<size_t>(i)], ref::weight(matrix, o, i));
      }
    }
  }
}

TEST(RowOps, EqualTheirTwins) {
  on_every_target([] {
    for (const int64_t n : {1, 8, 13, 64, 100}) {
      const std::vector<float> a = random_values(n, 1), b = random_values(n, 2);
      std::vector<float> y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
      rms_norm_row(a.data(), b.data(), n, 1e-5f, y.data());
      ref::rms_norm_row(a.data(), b.data(), n, 1e-5f, expected.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[static_cast<size_t>(i)], expected[static_cast<size_t>(i)], 1e-5);
      std::vector<float> gate = a;
      const float far[] = {-105, -178, -200, -1000, 300};  // where exp overflows, and Highway's gives anything
      for (size_t i = 0; i < std::min<size_t>(5, gate.size()); ++i) gate[i] = far[i];
      swiglu_row(gate.data(), b.data(), n, y.data());
      ref::swiglu_row(gate.data(), b.data(), n, expected.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[static_cast<size_t>(i)], expected[static_cast<size_t>(i)], 1e-5);
      ASSERT_NEAR(log_sum_exp_row(a.data(), n), ref::log_sum_exp_row(a.data(), n), 1e-5);
    }
  });
}

TEST(RowOps, RotationTurnsBothHalves) {
  on_every_target([] {
    for (const int64_t half : {1, 4, 8, 13, 16, 40}) {
      std::vector<float> x = random_values(2 * half, 1);
      const std::vector<float> before = x, cos = random_values(half, 2), sin = random_values(half, 3);
      rotate_row(x.data(), cos.data(), sin.data(), 2 * half);
      for (size_t i = 0; i < cos.size(); ++i) {
        const float a = before[i], b = before[cos.size() + i];
        ASSERT_NEAR(x[i], a * cos[i] - b * sin[i], 1e-6);
        ASSERT_NEAR(x[cos.size() + i], b * cos[i] + a * sin[i], 1e-6);
      }
    }
  });
}

TEST(RowOps, KeysAndValuesInF16AreRoundedToNearest) {
  std::vector<float> values = {
      65519,    65520,    -70000, INFINITY, -INFINITY,    NAN,   1 + 0x1p-11f, 1 + 3 * 0x1p-11f,
      0x1p-24f, 0x1p-25f, 3e-8f,  6e-5f,    0x1.ffcp-15f, -0.0f, 1e-30f,       0.1f};
  for (float v : random_values(24, 5)) values.push_back(v);
  on_every_target([&] {
    const int64_t head = static_cast<int64_t>(values.size());
    std::vector<std::byte> page(static_cast<size_t>(kv_page_bytes(KvType::kF16, head)));
    store_kv(KvType::kF16, page.data(), 3, values.data(), values.data(), head);
    const uint16_t* stored = reinterpret_cast<const uint16_t*>(page.data());
    for (int64_t i = 0; i < head; ++i) {
      const float v = values[static_cast<size_t>(i)];
      for (const uint16_t got :
           {stored[i * kPagePositions + 3], stored[kPagePositions * head + 3 * padded_head(head) + i]}) {
        if (std::isnan(v)) {
          ASSERT_TRUE(std::isnan(float_from_f16(got)));
        } else {
          ASSERT_EQ(got, f16_from_float(v)) << v;
        }
      }
    }
  });
}

TEST(RowOps, AttentionEqualsItsTwin) {
  on_every_target([] {
    for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kI8}) {
      for (const int64_t head : {2, 10, 16, 40, 64}) {
        const int64_t positions = 150;
        std::vector<std::vector<std::byte>> pages(3);
        std::vector<const std::byte*> pointers;
        for (auto& page : pages)
          page.resize(static_cast<size_t>(kv_page_bytes(type, head))), pointers.push_back(page.data());
        for (int64_t t = 0; t < positions; ++t) {
          const std::vector<float> key = random_values(head, 100 + static_cast<uint64_t>(t)),
                                   value = random_values(head, 999 + static_cast<uint64_t>(t));
          store_kv(type, pages[static_cast<size_t>(t / kPagePositions)].data(), static_cast<int>(t % kPagePositions),
                   key.data(), value.data(), head);
        }
        const std::vector<float> queries = random_values(13 * head, 7);
        std::vector<float> out(static_cast<size_t>(13 * head)), expected(out), alone(out);
        std::vector<AttentionQuery> rows, rows_expected;
        const int64_t places[6][2] = {{0, 1}, {0, 64}, {0, 65}, {0, 150}, {70, 120}, {100, 150}};
        for (int64_t r = 0; r < 13; ++r) {  // tiles of eight, four and one
          const float* q = queries.data() + r * head;
          rows.push_back({q, out.data() + r * head, places[r % 6][0], places[r % 6][1]});
          rows_expected.push_back({q, expected.data() + r * head, places[r % 6][0], places[r % 6][1]});
        }
        std::vector<float> scratch(static_cast<size_t>(attention_scratch(positions, head)));
        attend(type, pointers, head, rows, scratch.data());
        ref::attend(type, pointers, head, rows_expected);
        for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 1e-5) << "head " << head;
        for (size_t r = 0; r < 13; ++r) {
          AttentionQuery row = rows[r];
          row.out = alone.data() + static_cast<int64_t>(r) * head;
          attend(type, pointers, head, {&row, 1}, scratch.data());
        }
        ASSERT_EQ(out, alone);  // bit for bit
      }
    }
  });
}

}  // namespace
}  // namespace tessera
