#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/top_k.cpp"
#include "hwy/foreach_target.h"  // includes this file once for each target

// The order of these two groups matters.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/top_k.h"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// A vector's lanes are rows: no branch depends on a score, so nothing is mispredicted and rows don't wait for each
// other.
template <class F32>
struct Rows {
  using Vec = hn::Vec<F32>;
  using I32 = hn::RebindToSigned<F32>;
  using Ints = hn::Vec<I32>;
  const Candidates& c;
  const float *scores, *added;  // of the first of these rows
  Ints score_lanes, added_lanes;

  Rows(const Candidates& candidates, int64_t first, int64_t count)
      : c(candidates),
        scores(c.scores + first * c.row_stride),
        added(c.added + first * static_cast<int64_t>(c.group_sizes.size())) {
    // Behind the last row it is taken again.
    const I32 d;
    const Ints lane = hn::Min(hn::Iota(d, 0), hn::Set(d, static_cast<int32_t>(count - 1)));
    score_lanes = hn::Mul(lane, hn::Set(d, static_cast<int32_t>(c.row_stride)));
    added_lanes = hn::Mul(lane, hn::Set(d, static_cast<int32_t>(c.group_sizes.size())));
  }

  // body(candidate, score, which rows may choose it)
  template <class Body>
  HWY_INLINE void for_candidates(const Body& body) const {
    const F32 d;
    const Vec barred = hn::Set(d, -INFINITY);
    size_t i = 0;
    for (size_t g = 0; g < c.group_sizes.size(); ++g) {
      const size_t end = i + static_cast<size_t>(c.group_sizes[g]);
      const Vec add = hn::GatherIndex(d, added + g, added_lanes);
      const auto eligible = hn::Gt(add, barred);
      if (hn::AllFalse(d, eligible)) i = end;
      for (; i < end; ++i) body(i, hn::Add(hn::GatherIndex(d, scores + c.offsets[i], score_lanes), add), eligible);
    }
  }
};

template <class F32>
HWY_INLINE hn::Vec<F32> exp_of_negative(F32 d, hn::Vec<F32> x) {
  return hn::Exp(d, hn::Max(x, hn::Set(d, -104.0f)));  // beyond, Exp may give anything
}

template <class F32>
bool top_k_of(F32 d, const Candidates& c, int64_t num_rows, int64_t k, int32_t* ids, float* weights) {
  using Vec = hn::Vec<F32>;
  const hn::RebindToSigned<F32> di;
  using Ints = hn::Vec<decltype(di)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const size_t room = static_cast<size_t>(k * lanes);
  std::vector<float> best_keys(room), best_scores(room);  // [k, lanes]
  std::vector<int32_t> best_ids(room);
  const Vec minus_infinity = hn::Set(d, -INFINITY);
  auto is_bad = hn::Lt(hn::Zero(d), hn::Zero(d));
  for (int64_t first = 0; first < num_rows; first += lanes) {
    const int64_t count = std::min(lanes, num_rows - first);
    const Rows<F32> rows(c, first, count);
    std::fill(best_keys.begin(), best_keys.end(), -INFINITY);
    rows.for_candidates([&](size_t i, Vec score, auto eligible) {
      Vec key = hn::Add(score, hn::Set(d, c.bias[i]));
      is_bad = hn::Or(is_bad, hn::And(eligible, hn::Not(hn::IsFinite(key))));
      key = hn::IfThenElse(eligible, key, minus_infinity);
      Ints id = hn::Set(di, static_cast<int32_t>(i));
      auto shifts = hn::Lt(hn::Zero(d), hn::Zero(d));  // from where it belongs, all move down by one
      for (int64_t j = 0; j < k * lanes; j += lanes) {
        const Vec there = hn::LoadU(d, &best_keys[static_cast<size_t>(j)]),
                  score_there = hn::LoadU(d, &best_scores[static_cast<size_t>(j)]);
        const Ints id_there = hn::LoadU(di, &best_ids[static_cast<size_t>(j)]);
        shifts = hn::Or(shifts, hn::Gt(key, there));
        const auto shifts_id = hn::RebindMask(di, shifts);
        hn::StoreU(hn::IfThenElse(shifts, key, there), d, &best_keys[static_cast<size_t>(j)]);
        hn::StoreU(hn::IfThenElse(shifts, score, score_there), d, &best_scores[static_cast<size_t>(j)]);
        hn::StoreU(hn::IfThenElse(shifts_id, id, id_there), di, &best_ids[static_cast<size_t>(j)]);
        key = hn::IfThenElse(shifts, there, key);
        score = hn::IfThenElse(shifts, score_there, score);
        id = hn::IfThenElse(shifts_id, id_there, id);
      }
    });
    is_bad = hn::Or(is_bad, hn::Eq(hn::LoadU(d, &best_keys[room - static_cast<size_t>(lanes)]), minus_infinity));
    Vec largest = hn::LoadU(d, best_scores.data()), total = hn::Zero(d);
    if (k == 1) {
      rows.for_candidates([&](size_t, Vec score, auto eligible) {
        largest = hn::IfThenElse(eligible, hn::Max(largest, score), largest);
      });
      rows.for_candidates([&](size_t, Vec score, auto eligible) {
        total = hn::Add(total, hn::IfThenElseZero(eligible, exp_of_negative(d, hn::Sub(score, largest))));
      });
    }
    for (size_t j = static_cast<size_t>(lanes); j < room; j += static_cast<size_t>(lanes))
      largest = hn::Max(largest, hn::LoadU(d, &best_scores[j]));
    for (size_t j = 0; j < room; j += static_cast<size_t>(lanes)) {
      const Vec e = exp_of_negative(d, hn::Sub(hn::LoadU(d, &best_scores[j]), largest));
      if (k > 1) total = hn::Add(total, e);
      hn::StoreU(e, d, &best_scores[j]);
    }
    for (int64_t j = 0; j < k; ++j) {
      float* shares = &best_scores[static_cast<size_t>(j * lanes)];
      hn::StoreU(hn::Div(hn::LoadU(d, shares), total), d, shares);
      for (int64_t r = 0; r < count; ++r) {
        ids[(first + r) * k + j] = best_ids[static_cast<size_t>(j * lanes + r)];
        weights[(first + r) * k + j] = shares[r];
      }
    }
  }
  return hn::AllFalse(d, is_bad);
}

bool top_k(const Candidates& c, int64_t rows, int64_t k, int32_t* ids, float* weights) {
  if (rows <= 4) return top_k_of(hn::CappedTag<float, 4>(), c, rows, k, ids, weights);
  return top_k_of(hn::CappedTag<float, 16>(), c, rows, k, ids, weights);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
HWY_EXPORT(top_k);

bool top_k(const Candidates& candidates, int64_t rows, int64_t k, int32_t* ids, float* weights) {
  return HWY_DYNAMIC_DISPATCH(top_k)(candidates, rows, k, ids, weights);
}
}  // namespace tessera
#endif
