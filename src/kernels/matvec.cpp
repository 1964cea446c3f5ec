// Products with f32, bf16 and f16 weights: every (row, output) pair has one vector of partial sums, in the order of the
// inputs, whatever the tile around it.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matvec.cpp"
#include "hwy/foreach_target.h"  // includes this file once for each target
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kernels/bf16_amx.h"
#include "kernels/matvec.h"
#include "kernels/quant_matvec.h"
#include "kernels/rest-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;

HWY_INLINE hn::Vec<F32> load_weights(F32 d, const float* w) { return hn::LoadU(d, w); }
HWY_INLINE hn::Vec<F32> load_weights(F32 d, const hwy::bfloat16_t* w) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::bfloat16_t, F32>(), w));
}
HWY_INLINE hn::Vec<F32> load_weights(F32 d, const hwy::float16_t* w) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, F32>(), w));
}

// The first `count` weights, zeros behind.
HWY_INLINE hn::Vec<F32> load_first_weights(F32 d, size_t count, const float* w) { return load_first(d, count, w); }
template <class T>
HWY_INLINE hn::Vec<F32> load_first_weights(F32 d, size_t count, const T* w) {
  T whole[HWY_MAX_BYTES / sizeof(float)];
  std::memset(static_cast<void*>(whole), 0, sizeof whole);
  std::memcpy(static_cast<void*>(whole), w, count * sizeof(T));
  return load_weights(d, whole);
}

// Of each of N vectors the sum of its lanes, of which `lanes` are still apart. Neighbours are added, then pairs of
// neighbours, ..., so that the order does not depend on N; vectors are halved together, some 3 instructions for each
// instead of 10.
template <size_t lanes, size_t N>
HWY_INLINE void sums_of_lanes(F32 d, const hn::Vec<F32> (&vectors)[N], float* HWY_RESTRICT sums) {
  if constexpr (lanes == 1) {
    for (size_t i = 0; i < N; ++i) hn::StoreU(vectors[i], d, sums + i * hn::Lanes(d));
#if HWY_TARGET != HWY_SCALAR
  } else {
    hn::Vec<F32> halves[(N + 1) / 2];
    for (size_t i = 0; i < (N + 1) / 2; ++i) {
      const auto low = vectors[2 * i], high = vectors[std::min(2 * i + 1, N - 1)];
      halves[i] = hn::Add(hn::ConcatEven(d, high, low), hn::ConcatOdd(d, high, low));
    }
    sums_of_lanes<lanes / 2>(d, halves, sums);
#endif
  }
}

// O outputs of R rows. w: their first weight; both sides' last partial vector is padded with zeros.
template <int O, int R, class T>
HWY_INLINE void tile(const T* HWY_RESTRICT w, int64_t inputs, int64_t output, const ProductRow* HWY_RESTRICT rows,
                     Store store) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), whole = inputs / lanes * lanes;
  hn::Vec<F32> sums[R * O];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (int64_t i = 0; i < whole; i += lanes) {
    hn::Vec<F32> x[R];
    for (int r = 0; r < R; ++r) x[r] = hn::LoadU(d, rows[r].x + i);
    for (int o = 0; o < O; ++o) {
      auto weights = load_weights(d, w + o * inputs + i);
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
      asm("" : "+v"(weights.raw));  // or the compiler loads it again for every row
#endif
      for (int r = 0; r < R; ++r) sums[r * O + o] = hn::MulAdd(weights, x[r], sums[r * O + o]);
    }
  }
  if (whole < inputs) {
    const size_t rest = static_cast<size_t>(inputs - whole);
    hn::Vec<F32> x[R];
    for (int r = 0; r < R; ++r) x[r] = load_first(d, rest, rows[r].x + whole);
    for (int o = 0; o < O; ++o) {
      const auto weights = load_first_weights(d, rest, w + o * inputs + whole);
      for (int r = 0; r < R; ++r) sums[r * O + o] = hn::MulAdd(weights, x[r], sums[r * O + o]);
    }
  }
  HWY_ALIGN float out[R * O + HWY_MAX_BYTES / sizeof(float)];
  sums_of_lanes<hn::MaxLanes(F32())>(d, sums, out);
  const hn::CappedTag<float, O> outputs;
  for (int r = 0; r < R; ++r) {
    float* y = rows[r].y + output;
    for (int o = 0; o < O; o += static_cast<int>(hn::Lanes(outputs))) {
      const auto sum = hn::LoadU(outputs, out + r * O + o);
      const auto scaled = [&] { return hn::MulAdd(hn::Set(outputs, rows[r].scale), sum, hn::LoadU(outputs, y + o)); };
      hn::StoreU(store == Store::kSet ? sum : scaled(), outputs, y + o);
    }
  }
}

template <int R, class T>
void rows_tile(const T* w, int64_t inputs, int64_t begin, int64_t end, const ProductRow* rows, Store store) {
  constexpr int kOutputs = R == 1 ? 8 : 4;
  int64_t o = begin;
  for (; o + kOutputs <= end; o += kOutputs) tile<kOutputs, R>(w + o * inputs, inputs, o, rows, store);
  for (; o < end; ++o) tile<1, R>(w + o * inputs, inputs, o, rows, store);
}

template <class T>
void multiply_as(const T* w, int64_t inputs, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                 Store store) {
  // So many outputs at a time that their weights stay in the first-level cache while the rows pass by.
  const int64_t step =
      std::max<int64_t>(8, 16384 / std::max<int64_t>(1, inputs * static_cast<int64_t>(sizeof(T))) / 8 * 8);
  for (int64_t first = begin; first < end; first += step) {
    const int64_t last = std::min(end, first + step);
    size_t r = 0;
    for (; r + 3 <= rows.size(); r += 3) rows_tile<3>(w, inputs, first, last, &rows[r], store);
    if (rows.size() - r == 2) rows_tile<2>(w, inputs, first, last, &rows[r], store);
    if (rows.size() - r == 1) rows_tile<1>(w, inputs, first, last, &rows[r], store);
  }
}

void multiply_float(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  if (w.type == WeightType::kF32) {
    multiply_as(reinterpret_cast<const float*>(w.data), w.inputs, begin, end, rows, store);
  } else if (w.type == WeightType::kBF16) {
    multiply_as(reinterpret_cast<const hwy::bfloat16_t*>(w.data), w.inputs, begin, end, rows, store);
  } else {
    multiply_as(reinterpret_cast<const hwy::float16_t*>(w.data), w.inputs, begin, end, rows, store);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

HWY_EXPORT(multiply_float);

int64_t matrix_bytes(WeightType type, int64_t outputs, int64_t inputs) {
  switch (type) {
    case WeightType::kF32:
      return outputs * inputs * 4;
    case WeightType::kBF16:
    case WeightType::kF16:
      return outputs * inputs * 2;
    case WeightType::kQ8:
      return quantised_bytes(outputs, inputs, 8);
    case WeightType::kQ4:
      return quantised_bytes(outputs, inputs, 4);
  }
  return 0;
}

void multiply(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store) {
  TESSERA_CHECK(begin >= 0 && begin <= end && end <= w.outputs, "outputs outside the matrix");
  if (rows.empty() || begin == end) return;
  if (w.is_quantised()) {
    TESSERA_CHECK(begin % kBlockOutputs == 0 && (end % kBlockOutputs == 0 || end == w.outputs),
                  "a range of outputs of a quantised matrix is whole blocks");
    multiply_quantised(w, begin, end, rows, store);
  } else if (w.type == WeightType::kBF16 && has_amx_bf16()) {
    // For single rows too: one way for a matrix, or bits would depend on the number of rows.
    multiply_bf16_amx(w, begin, end, rows, store);
  } else {
    HWY_DYNAMIC_DISPATCH(multiply_float)(w, begin, end, rows, store);
  }
}

}  // namespace tessera
#endif
