// How a quantised matrix W [outputs, inputs] lies in a model file, and in memory: the kernels read these very bytes.
//
// W is cut into blocks of 16 outputs x 32 inputs, padded with zero weights at its lower and right edge; blocks follow
// each other along the inputs first: block (o / 16, i / 32). Of each block:
//   16 scales, f16: one an output (a group is one output's 32 inputs; weight = scale * (stored - zero point))
//   8 bits: 8 cells of 16 outputs x 4 inputs, one byte a weight, zero point 128, stored 1..255
//   4 bits: 4 cells of 16 outputs x 4 inputs, one byte for two weights, zero point 8, stored 0..15: the low nibble of
//           cell c is input 8 c + i, the high nibble input 8 c + 4 + i
// A cell is 64 bytes: one AVX-512 register, two AVX2 ones, one row of an AMX tile. Its order (4 inputs of output 0, 4
// of output 1, ...) is the operand of vpdpbusd and maddubs (4 bits: a nibble), or of vpdpwssd and madd (8 bits: the
// even or the odd bytes); the other operand is 4 or 2 inputs of the activations, broadcast.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tessera {

inline constexpr int kBlockOutputs = 16, kBlockInputs = 32;

inline constexpr int64_t num_blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }
inline constexpr int64_t block_bytes(int bits) { return kBlockOutputs * (2 + kBlockInputs * bits / 8); }
// Bytes of a quantised matrix; bits: 8 or 4. The product of the sizes is below 2^60.
inline constexpr int64_t quantised_bytes(int64_t outputs, int64_t inputs, int bits) {
  return num_blocks(outputs, kBlockOutputs) * num_blocks(inputs, kBlockInputs) * block_bytes(bits);
}

inline constexpr int zero_point(int bits) { return 1 << (bits - 1); }

// Where a weight lies in its block: in bits [shift, shift + bits) of a byte.
struct WeightPlace {
  int64_t byte;
  int shift;
};
inline constexpr WeightPlace weight_place(int64_t output, int64_t input, int bits) {
  const int64_t of_cell = 32 / bits;  // inputs: 4 or 8
  return {2 * kBlockOutputs + input / of_cell * 64 + output * 4 + input % 4, input % of_cell < 4 ? 0 : 4};
}
// Without its zero point.
inline int stored_weight(const std::byte* block, int64_t output, int64_t input, int bits) {
  const WeightPlace place = weight_place(output, input, bits);
  return (static_cast<int>(block[place.byte]) >> place.shift & ((1 << bits) - 1)) - zero_point(bits);
}

}  // namespace tessera
