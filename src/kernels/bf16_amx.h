// The product with bf16 weights on AMX tiles. Activations are f32: each is the sum of three bf16 numbers (8 bits of its
// mantissa each), so that nothing of a number of size 2^-110 or more is lost, and three tile products take the place of
// one. An infinite activation or weight gives what is not finite.
#pragma once
#include <span>

#include "kernels/matvec.h"

namespace tessera {

// The CPU has AMX-BF16 and what goes with it, the system lets this process use tiles, and at the start a product on
// them was near the twin's. Never by time, as for quantised weights: tiles sum in another order than vectors, and bits
// must not depend on how busy the machine was.
bool has_amx_bf16();

// kernels/matvec.h's multiply for bf16 weights: a result depends on its row and its output alone here too. The second
// is the same code on tiles in software: it needs AVX-512 (F, BW), not AMX.
void multiply_bf16_amx(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                       Store store);
void multiply_bf16_amx_in_software(const WeightMatrix& w, int64_t begin, int64_t end, std::span<const ProductRow> rows,
                                   Store store);

}  // namespace tessera
