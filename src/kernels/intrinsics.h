// The intrinsics of x86, and the target of functions that use AVX-512 beside AMX tiles.
#pragma once
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of GCC 12's own header (its bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

// What the code around AMX tiles needs.
#define TESSERA_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw")))
