#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/row_ops.cpp"
#include "hwy/foreach_target.h"  // includes this file once for each target

// The order of these two groups matters.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/float_bits.h"
#include "kernels/row_ops.h"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: a page's 64 positions and a padded head are whole vectors.
using F32 = hn::CappedTag<float, 16>;
using Vec = hn::Vec<F32>;

// f(vector of each input) over n elements, the last vector padded with zeros.
template <class F>
HWY_INLINE void for_vectors(int64_t n, const float* a, const float* b, float* y, F f) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(f(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
  if (i == n) return;
  HWY_ALIGN float in[2][16] = {}, out[16];
  std::memcpy(in[0], a + i, static_cast<size_t>(n - i) * 4);
  std::memcpy(in[1], b + i, static_cast<size_t>(n - i) * 4);
  hn::StoreU(f(hn::LoadU(d, in[0]), hn::LoadU(d, in[1])), d, out);
  std::memcpy(y + i, out, static_cast<size_t>(n - i) * 4);
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Vec sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const Vec v = hn::LoadU(d, x + i);
    sums = hn::MulAdd(v, v, sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < n; ++i) sum += x[i] * x[i];
  const Vec inverse = hn::Set(d, 1.0f / std::sqrt(sum / static_cast<float>(n) + eps));
  for_vectors(n, x, weight, y, [&](Vec v, Vec w) { return hn::Mul(hn::Mul(v, inverse), w); });
}

void swiglu(const float* gate, const float* up, int64_t n, float* y) {
  const F32 d;
  const Vec one = hn::Set(d, 1.0f), most = hn::Set(d, 104.0f);  // beyond, Exp may give anything
  for_vectors(n, gate, up, y, [&](Vec g, Vec u) {
    return hn::Mul(hn::Div(g, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(g), most)))), u);
  });
}

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    const Vec a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i), c = hn::LoadU(d, cos + i),
              s = hn::LoadU(d, sin + i);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, x + i);
    hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, x + half + i);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cos[i] - b * sin[i];
    x[half + i] = b * cos[i] + a * sin[i];
  }
}

float log_sum_exp(const float* x, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float largest = x[0];
  for (int64_t i = 1; i < n; ++i) largest = std::max(largest, x[i]);
  const Vec largest_v = hn::Set(d, largest);
  Vec sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sums = hn::Add(sums, hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), largest_v)));
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < n; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

HWY_INLINE Vec load_kv(F32 d, const float* at) { return hn::LoadU(d, at); }
HWY_INLINE Vec load_kv(F32 d, const hwy::float16_t* at) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, F32>(), at));
}
HWY_INLINE Vec load_kv(F32 d, const int8_t* at) {
  return hn::ConvertTo(d, hn::PromoteTo(hn::RebindToSigned<F32>(), hn::LoadU(hn::Rebind<int8_t, F32>(), at)));
}

constexpr int64_t kPage = kPagePositions;

// scores[r][0, 64) = q_r k for one page; each sum runs over the dimensions in order.
template <int R, class T>
HWY_INLINE void score_page(const T* keys, int64_t head_dim, const AttentionQuery* rows, float* const* scores) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t p = 0; p < kPage; p += 2 * lanes) {
    Vec sums[R][2];
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = hn::Zero(d);
    for (int64_t i = 0; i < head_dim; ++i) {
      const Vec k0 = load_kv(d, keys + i * kPage + p), k1 = load_kv(d, keys + i * kPage + p + lanes);
      for (int r = 0; r < R; ++r) {
        const Vec q = hn::Set(d, rows[r].query[i]);
        sums[r][0] = hn::MulAdd(q, k0, sums[r][0]);
        sums[r][1] = hn::MulAdd(q, k1, sums[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      hn::StoreU(sums[r][0], d, scores[r] + p);
      hn::StoreU(sums[r][1], d, scores[r] + p + lanes);
    }
  }
}

// out[r][0, V vectors) += share[r][t] v[t] for t in [0, count) of one page, in order.
template <int R, int V, class T>
HWY_INLINE void mix_vectors(const T* values, int64_t padded, int64_t count, float* const* shares, float* const* out) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Vec sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sums[r][v] = hn::LoadU(d, out[r] + v * lanes);
  }
  for (int64_t t = 0; t < count; ++t) {
    Vec value[V];
    for (int v = 0; v < V; ++v) value[v] = load_kv(d, values + t * padded + v * lanes);
    for (int r = 0; r < R; ++r) {
      const Vec share = hn::Set(d, shares[r][t]);
      for (int v = 0; v < V; ++v) sums[r][v] = hn::MulAdd(share, value[v], sums[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) hn::StoreU(sums[r][v], d, out[r] + v * lanes);
  }
}

template <int R, class T>
HWY_INLINE void mix_page(const T* values, int64_t padded, int64_t count, float* const* shares, float* const* out) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  for (int64_t i = 0; i < padded; i += 2 * lanes) {
    float* out_i[R];
    for (int r = 0; r < R; ++r) out_i[r] = out[r] + i;
    if (i + lanes < padded) {
      mix_vectors<R, 2>(values + i, padded, count, shares, out_i);
    } else {  // 16 padded elements are one vector of 16 lanes
      mix_vectors<R, 1>(values + i, padded, count, shares, out_i);
    }
  }
}

// 2^x for x <= 0, zero below -126: a fifth-degree minimax polynomial on [-0.5, 0.5] (relative error 2e-7) times a
// power of two. Half the instructions of hn::Exp, which has more digits and a wider range.
HWY_INLINE Vec exp2_of_negative(F32 d, Vec x) {
  const hn::RebindToSigned<F32> di;
  const auto whole = hn::NearestInt(x);
  const Vec f = hn::Sub(x, hn::ConvertTo(d, whole));
  Vec p = hn::Set(d, 1.32647e-3f);
  p = hn::MulAdd(p, f, hn::Set(d, 9.67151e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550734e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.4022242e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.9314698e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const Vec scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(whole)));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(d, -126.0f)), scaled);
}

// scores[begin, padded_end) -> exp(scale (score - max)), zeros outside [first, end); gives 1 / their sum.
HWY_INLINE float softmax(float* scores, int64_t begin, int64_t first, int64_t end, int64_t padded_end, float scale) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t t = begin; t < first; ++t) scores[t] = -INFINITY;
  for (int64_t t = end; t < padded_end; ++t) scores[t] = -INFINITY;
  Vec largest = hn::Set(d, -INFINITY);
  for (int64_t t = begin; t < padded_end; t += lanes) largest = hn::Max(largest, hn::LoadU(d, scores + t));
  largest = hn::MaxOfLanes(d, largest);
  const Vec factor = hn::Set(d, scale * 1.44269504f);  // log2(e)
  Vec sums = hn::Zero(d);
  for (int64_t t = begin; t < padded_end; t += lanes) {
    const Vec e = exp2_of_negative(d, hn::Mul(hn::Sub(hn::LoadU(d, scores + t), largest), factor));
    hn::StoreU(e, d, scores + t);
    sums = hn::Add(sums, e);
  }
  return 1.0f / hn::GetLane(hn::SumOfLanes(d, sums));
}

template <int R, class T>
void attend_tile(std::span<const std::byte* const> pages, int64_t head_dim, const AttentionQuery* rows,
                 float* scratch) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), padded = padded_head(head_dim);
  int64_t first = rows[0].first, end = rows[0].end;
  for (int r = 1; r < R; ++r) first = std::min(first, rows[r].first), end = std::max(end, rows[r].end);
  const int64_t first_page = first / kPage, end_page = (end + kPage - 1) / kPage, size = end_page * kPage;
  float *scores[R], *sums[R];
  for (int r = 0; r < R; ++r) {
    scores[r] = scratch + r * (size + padded);
    sums[r] = scores[r] + size;
    std::memset(sums[r], 0, static_cast<size_t>(padded) * 4);
  }
  float *page_scores[R], inverse[R];
  for (int64_t p = first_page; p < end_page; ++p) {
    for (int r = 0; r < R; ++r) page_scores[r] = scores[r] + p * kPage;
    const std::byte* page = pages[static_cast<size_t>(p)];
    score_page<R>(reinterpret_cast<const T*>(page), head_dim, rows, page_scores);
    if constexpr (sizeof(T) == 1) {
      const float* scales = reinterpret_cast<const float*>(page + kPage * (head_dim + padded));
      for (int r = 0; r < R; ++r) {
        for (int64_t t = 0; t < kPage; t += lanes)
          hn::StoreU(hn::Mul(hn::LoadU(d, page_scores[r] + t), hn::LoadU(d, scales + t)), d, page_scores[r] + t);
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (int r = 0; r < R; ++r)
    inverse[r] = softmax(scores[r], first_page * kPage, rows[r].first, rows[r].end, size, scale);
  for (int64_t p = first_page; p < end_page; ++p) {
    for (int r = 0; r < R; ++r) page_scores[r] = scores[r] + p * kPage;
    const std::byte* page = pages[static_cast<size_t>(p)];
    if constexpr (sizeof(T) == 1) {
      const float* scales = reinterpret_cast<const float*>(page + kPage * (head_dim + padded)) + kPage;
      for (int r = 0; r < R; ++r) {
        for (int64_t t = 0; t < kPage; t += lanes)
          hn::StoreU(hn::Mul(hn::LoadU(d, page_scores[r] + t), hn::LoadU(d, scales + t)), d, page_scores[r] + t);
      }
    }
    mix_page<R>(reinterpret_cast<const T*>(page) + kPage * head_dim, padded, std::min(kPage, end - p * kPage),
                page_scores, sums);
  }
  for (int r = 0; r < R; ++r) {
    for (int64_t i = 0; i < head_dim; ++i) rows[r].out[i] = sums[r][i] * inverse[r];
  }
}

template <class T>
void attend_as(std::span<const std::byte* const> pages, int64_t head_dim, std::span<const AttentionQuery> rows,
               float* scratch) {
  size_t r = 0;
#if HWY_MAX_BYTES >= 64  // twice the registers: a key is read once for eight queries
  for (; r + 8 <= rows.size(); r += 8) attend_tile<8, T>(pages, head_dim, &rows[r], scratch);
#endif
  for (; r + 4 <= rows.size(); r += 4) attend_tile<4, T>(pages, head_dim, &rows[r], scratch);
  if (rows.size() - r == 3) attend_tile<3, T>(pages, head_dim, &rows[r], scratch);
  if (rows.size() - r == 2) attend_tile<2, T>(pages, head_dim, &rows[r], scratch);
  if (rows.size() - r == 1) attend_tile<1, T>(pages, head_dim, &rows[r], scratch);
}

void attend_any(KvType type, std::span<const std::byte* const> pages, int64_t head_dim,
                std::span<const AttentionQuery> rows, float* scratch) {
  if (type == KvType::kF32) attend_as<float>(pages, head_dim, rows, scratch);
  if (type == KvType::kF16) attend_as<hwy::float16_t>(pages, head_dim, rows, scratch);
  if (type == KvType::kI8) attend_as<int8_t>(pages, head_dim, rows, scratch);
}

void to_f16(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
#if HWY_TARGET <= HWY_AVX2 || HWY_ARCH_ARM  // without an instruction for it Highway does not round to nearest
  const F32 d;
  const hn::Rebind<hwy::float16_t, F32> half;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::DemoteTo(half, hn::LoadU(d, x + i)), half, reinterpret_cast<hwy::float16_t*>(out + i));
#endif
  for (; i < n; ++i) out[i] = f16_from_float(x[i]);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

HWY_EXPORT(rms_norm);
HWY_EXPORT(swiglu);
HWY_EXPORT(log_sum_exp);
HWY_EXPORT(rotate);
HWY_EXPORT(attend_any);
HWY_EXPORT(to_f16);

void rms_norm_row(const float* x, const float* weight, int64_t n, float eps, float* y) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(x, weight, n, eps, y);
}

void swiglu_row(const float* gate, const float* up, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(swiglu)(gate, up, n, y);
}

float log_sum_exp_row(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(log_sum_exp)(x, n); }

void rotate_row(float* x, const float* cos, const float* sin, int64_t head_dim) {
  HWY_DYNAMIC_DISPATCH(rotate)(x, cos, sin, head_dim / 2);
}

int64_t kv_page_bytes(KvType type, int64_t head_dim) {
  const int64_t elements = kPagePositions * (head_dim + padded_head(head_dim));
  return type == KvType::kF32 ? elements * 4 : type == KvType::kF16 ? elements * 2 : elements + 2 * kPagePositions * 4;
}

namespace {

// scale = max |x| / 127
float quantise_head(const float* x, int64_t n, int8_t* out, int64_t stride) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  for (int64_t i = 0; i < n; ++i) out[i * stride] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  return largest / 127.0f;
}

}  // namespace

void store_kv(KvType type, std::byte* page, int slot, const float* key, const float* value, int64_t head_dim) {
  const int64_t padded = padded_head(head_dim), values = kPagePositions * head_dim;
  if (type == KvType::kF32) {
    float* out = reinterpret_cast<float*>(page);
    for (int64_t i = 0; i < head_dim; ++i) out[i * kPagePositions + slot] = key[i];
    std::memcpy(out + values + slot * padded, value, static_cast<size_t>(head_dim) * 4);
  } else if (type == KvType::kF16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    HWY_DYNAMIC_DISPATCH(to_f16)(value, head_dim, out + values + slot * padded);
    constexpr int64_t kPart = 64;
    uint16_t part[kPart];
    for (int64_t first = 0; first < head_dim; first += kPart) {
      const int64_t count = std::min(kPart, head_dim - first);
      HWY_DYNAMIC_DISPATCH(to_f16)(key + first, count, part);
      for (int64_t i = 0; i < count; ++i) out[(first + i) * kPagePositions + slot] = part[i];
    }
  } else {
    int8_t* out = reinterpret_cast<int8_t*>(page);
    float* scales = reinterpret_cast<float*>(page + kPagePositions * (head_dim + padded));
    scales[slot] = quantise_head(key, head_dim, out + slot, kPagePositions);
    scales[kPagePositions + slot] = quantise_head(value, head_dim, out + values + slot * padded, 1);
  }
}

void attend(KvType type, std::span<const std::byte* const> pages, int64_t head_dim,
            std::span<const AttentionQuery> rows, float* scratch) {
  HWY_DYNAMIC_DISPATCH(attend_any)(type, pages, head_dim, rows, scratch);
}

}  // namespace tessera
#endif
