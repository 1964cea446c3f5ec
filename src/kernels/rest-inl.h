// Access to a vector in memory, or to the first numbers of one, for what is left of a row. Included once for each
// instruction set, as Highway's own -inl.h headers are.
#if defined(TESSERA_KERNELS_REST_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_REST_INL_H
#undef TESSERA_KERNELS_REST_INL_H
#else
#define TESSERA_KERNELS_REST_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// AVX2 and AVX-512 mask loads and stores in memory; elsewhere Highway 1.0's MaskedLoad reads the whole vector.
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_SCALAR

template <class D>
HWY_INLINE hn::Vec<D> load_first(D d, size_t count, const float* from) {  // zeros behind
  return hn::MaskedLoad(hn::FirstN(d, count), d, from);
}
template <class D>
HWY_INLINE void store_first(hn::Vec<D> v, D d, size_t count, float* to) {
  hn::BlendedStore(v, hn::FirstN(d, count), d, to);
}

#else

template <class D>
HWY_INLINE hn::Vec<D> load_first(D d, size_t count, const float* from) {
  HWY_ALIGN float whole[hn::MaxLanes(d)] = {};
  std::copy_n(from, count, whole);
  return hn::Load(d, whole);
}
template <class D>
HWY_INLINE void store_first(hn::Vec<D> v, D d, size_t count, float* to) {
  HWY_ALIGN float whole[hn::MaxLanes(d)];
  hn::Store(v, d, whole);
  std::copy_n(whole, count, to);
}

#endif

// A vector's worth of numbers in memory, or the first `count` of one: what is left of a row takes one step, not one
// each.
template <class D>
struct Whole {
  D d;
  HWY_INLINE hn::Vec<D> load(const float* from) const { return hn::LoadU(d, from); }
  HWY_INLINE void store(hn::Vec<D> v, float* to) const { hn::StoreU(v, d, to); }
};
template <class D>
struct Part {
  D d;
  size_t count;
  HWY_INLINE hn::Vec<D> load(const float* from) const { return load_first(d, count, from); }  // zeros behind
  HWY_INLINE void store(hn::Vec<D> v, float* to) const { store_first(v, d, count, to); }
};
template <class D>
HWY_INLINE Part<D> first_of(D d, int64_t count) {
  return {d, static_cast<size_t>(count)};
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // once for each target
