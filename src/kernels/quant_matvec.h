// The quantised product's ways (AMX, AVX-512 VNNI, AVX-VNNI, AVX2, scalar), chosen at run time. Same bits from each.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "kernels/matvec.h"

namespace tessera {

using MultiplyQuantised = void (*)(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                                   Store store);
struct QuantisedWay {
  std::string_view name;  // "amx-int8", "avx512-vnni", "avx-vnni", "avx2", "scalar"
  MultiplyQuantised multiply;
};
// Those that this CPU can run, the fastest first.
const std::vector<QuantisedWay>& quantised_ways();

void multiply_quantised(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                        Store store);

}  // namespace tessera
