// The quantised product on AMX tiles (Intel's Software Developer's Manual, volume 1, chapter 18), for prompts and
// batches: 16 rows at a time.
#pragma once
#include <span>

#include "kernels/quant_matvec.h"

namespace tessera {

inline constexpr size_t kAmxRows = 16;

// The CPU has AMX-INT8 and what goes with it, the system lets this process use tiles, and in a trial at the start a
// product on them gave what the twin gives, in less time than by `other`.
bool has_amx(MultiplyQuantised other);

// kernels/matvec.h's multiply for a multiple of kAmxRows rows. The second is the same code on tiles in software, which
// say what the instructions do: it needs AVX-512 (F, BW), not AMX.
void multiply_amx(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows, Store store);
void multiply_amx_in_software(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                              Store store);

// `rounds` of products on full tiles alone, for the machine's limit; the number of multiply-adds.
int64_t amx_rounds(int64_t rounds);

}  // namespace tessera
