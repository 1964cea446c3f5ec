// What one thread of this machine can do at most, measured: the yardstick of `./tessera bench engine`.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera {

// The fastest way to multiply and add 8-bit integers that the kernels have on this CPU (vpdpbusd, or vpmaddubsw and
// vpmaddwd), on registers alone, and f32's fused multiply-add.
enum class Arithmetic { kInt8, kF32 };
// Multiply-adds done by `rounds` rounds on the calling thread; the caller takes the time.
int64_t multiply_add_rounds(Arithmetic arithmetic, int64_t rounds);

// Reads every byte once; the result only keeps the compiler from leaving it out.
uint64_t read_bytes(std::span<const std::byte> bytes);

}  // namespace tessera
