// Scalar twins: the specification of the kernels, one plain loop each.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/float_bits.h"
#include "base/load.h"
#include "kernels/matvec.h"
#include "kernels/row_ops.h"
#include "kernels/top_k.h"

namespace tessera::ref {
namespace {

template <class T>
struct Group {  // of a quantised row
  float scale;
  int32_t offset;
  T values[kBlockInputs];
};
static_assert(sizeof(Group<int8_t>) == quantised_group_bytes(WeightType::kQ4));
static_assert(sizeof(Group<int16_t>) == quantised_group_bytes(WeightType::kQ8));

// Where input i lies in a group of i16: 0 2 1 3, 4 6 5 7, ... A kernel splits a cell's four weights an output into the
// even and the odd ones.
int place_i16(int i) { return i / 4 * 4 + (i % 4 == 1 ? 2 : i % 4 == 2 ? 1 : i % 4); }

const std::byte* block_at(const WeightMatrix& w, int64_t output, int64_t input, int bits) {
  const int64_t across = num_blocks(w.inputs, kBlockInputs);
  return w.data + (output / kBlockOutputs * across + input / kBlockInputs) * block_bytes(bits);
}

float dot_quantised(const WeightMatrix& w, int64_t output, const std::byte* x) {
  const int bits = w.type == WeightType::kQ8 ? 8 : 4, o = static_cast<int>(output % kBlockOutputs);
  float sum = 0;
  for (int64_t g = 0; g < num_blocks(w.inputs, kBlockInputs); ++g) {
    const std::byte* block = block_at(w, output, g * kBlockInputs, bits);
    const std::byte* group = x + g * quantised_group_bytes(w.type);
    int32_t dot = 0;
    for (int i = 0; i < kBlockInputs; ++i) {
      const int value =
          bits == 8 ? load<Group<int16_t>>(group).values[place_i16(i)] : load<Group<int8_t>>(group).values[i];
      dot += stored_weight(block, o, i, bits) * value;
    }
    const float scale = float_from_f16(load<uint16_t>(block + 2 * o)) * load<float>(group);
    sum = std::fma(static_cast<float>(dot), scale, sum);
  }
  return sum;
}

}  // namespace

float weight(const WeightMatrix& w, int64_t output, int64_t input) {
  const int64_t index = output * w.inputs + input;
  switch (w.type) {
    case WeightType::kF32:
      return load<float>(w.data + index * 4);
    case WeightType::kBF16:
      return float_from_bf16(load<uint16_t>(w.data + index * 2));
    case WeightType::kF16:
      return float_from_f16(load<uint16_t>(w.data + index * 2));
    case WeightType::kQ8:
    case WeightType::kQ4:
      break;
  }
  const int bits = w.type == WeightType::kQ8 ? 8 : 4, o = static_cast<int>(output % kBlockOutputs);
  const std::byte* block = block_at(w, output, input, bits);
  return float_from_f16(load<uint16_t>(block + 2 * o)) *
         static_cast<float>(stored_weight(block, o, input % kBlockInputs, bits));
}

void multiply(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  for (const ProductRow& row : rows) {
    for (int64_t o = begin; o < end; ++o) {
      float sum = 0;
      if (w.is_quantised()) {
        sum = dot_quantised(w, o, row.quantised);
      } else {
        for (int64_t i = 0; i < w.inputs; ++i) sum += row.x[i] * weight(w, o, i);
      }
      row.y[o] = store == Store::kSet ? sum : std::fma(row.scale, sum, row.y[o]);
    }
  }
}

void quantise_row(const float* x, int64_t inputs, WeightType reader, std::byte* out) {
  const bool wide = reader == WeightType::kQ8;
  const float most = wide ? 32767.0f : 127.0f;
  const int offset = zero_point(wide ? 8 : 4);
  for (int64_t begin = 0; begin < inputs; begin += kBlockInputs, out += quantised_group_bytes(reader)) {
    const int count = static_cast<int>(std::min<int64_t>(kBlockInputs, inputs - begin));
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[begin + i]));
    const float scale = largest / most, inverse = largest >= kLeastActivation ? most / largest : 0.0f;
    Group<int8_t> narrow_group = {scale, 0, {}};
    Group<int16_t> wide_group = {scale, 0, {}};
    for (int i = 0; i < count; ++i) {
      const int value = static_cast<int>(std::nearbyint(x[begin + i] * inverse));
      narrow_group.values[i] = static_cast<int8_t>(value);
      wide_group.values[place_i16(i)] = static_cast<int16_t>(value);
      narrow_group.offset = wide_group.offset -= offset * value;
    }
    wide ? std::memcpy(out, &wide_group, sizeof wide_group) : std::memcpy(out, &narrow_group, sizeof narrow_group);
  }
}

void rms_norm_row(const float* x, const float* weight, int64_t n, float eps, float* y) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

void swiglu_row(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

float log_sum_exp_row(const float* x, int64_t n) {
  const float largest = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - largest);
  return static_cast<float>(largest + std::log(sum));
}

bool top_k(const Candidates& c, int64_t rows, int64_t k, int32_t* ids, float* weights) {
  const int64_t n = static_cast<int64_t>(c.offsets.size());
  for (int64_t r = 0; r < rows; ++r) {
    const float *scores = c.scores + r * c.row_stride,
                *added = c.added + r * static_cast<int64_t>(c.group_sizes.size());
    std::vector<float> score(static_cast<size_t>(n)), key(static_cast<size_t>(n));
    std::vector<int32_t> order;  // the eligible
    for (int64_t i = 0, group = 0, end = c.group_sizes[0]; i < n; ++i) {
      while (i == end) end += c.group_sizes[static_cast<size_t>(++group)];
      if (added[group] == -INFINITY) continue;
      const size_t at = static_cast<size_t>(i);
      score[at] = scores[c.offsets[at]] + added[group];
      key[at] = score[at] + c.bias[at];
      if (!std::isfinite(key[at])) return false;
      order.push_back(static_cast<int32_t>(i));
    }
    if (static_cast<int64_t>(order.size()) < k) return false;
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return key[static_cast<size_t>(a)] > key[static_cast<size_t>(b)]; });
    std::copy_n(order.begin(), k, ids + r * k);
    if (k > 1) order.resize(static_cast<size_t>(k));
    float largest = -INFINITY;
    for (const int32_t i : order) largest = std::max(largest, score[static_cast<size_t>(i)]);
    const auto share = [&](int32_t i) { return std::exp(double{score[static_cast<size_t>(i)]} - double{largest}); };
    double total = 0;
    for (const int32_t i : order) total += share(i);
    for (int64_t i = r * k; i < (r + 1) * k; ++i) weights[i] = static_cast<float>(share(ids[i]) / total);
  }
  return true;
}

void attend(KvType type, std::span<const std::byte* const> pages, int64_t head_dim,
            std::span<const AttentionQuery> rows) {
  const int64_t padded = padded_head(head_dim), P = kPagePositions;
  const auto element = [&](const std::byte* at, int64_t i) {
    return type == KvType::kF32   ? load<float>(at + 4 * i)
           : type == KvType::kF16 ? float_from_f16(load<uint16_t>(at + 2 * i))
                                  : static_cast<float>(load<int8_t>(at + i));
  };
  const int64_t size = type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
  for (const AttentionQuery& row : rows) {
    std::vector<float> share(static_cast<size_t>(row.end));
    float largest = -INFINITY, total = 0;
    const auto scale_at = [&](int64_t t, bool of_value) {
      if (type != KvType::kI8) return 1.0f;
      return load<float>(pages[static_cast<size_t>(t / P)] + P * (head_dim + padded) +
                         4 * (t % P + (of_value ? P : 0)));
    };
    for (int64_t t = row.first; t < row.end; ++t) {
      float dot = 0;
      for (int64_t i = 0; i < head_dim; ++i)
        dot += row.query[i] * element(pages[static_cast<size_t>(t / P)], i * P + t % P);
      share[static_cast<size_t>(t)] = dot * scale_at(t, false) / std::sqrt(static_cast<float>(head_dim));
      largest = std::max(largest, share[static_cast<size_t>(t)]);
    }
    for (int64_t t = row.first; t < row.end; ++t) {
      share[static_cast<size_t>(t)] = std::exp(share[static_cast<size_t>(t)] - largest);
      total += share[static_cast<size_t>(t)];
    }
    for (int64_t i = 0; i < head_dim; ++i) {
      float sum = 0;
      for (int64_t t = row.first; t < row.end; ++t) {
        const std::byte* values = pages[static_cast<size_t>(t / P)] + size * P * head_dim;
        sum += share[static_cast<size_t>(t)] * scale_at(t, true) * element(values, t % P * padded + i);
      }
      row.out[i] = sum / total;
    }
  }
}

}  // namespace tessera::ref
