// The tensor types of GGUF that we read, and what each block of bytes means in float32. Blocks lie along the last
// dimension; the formats are ggml's (ggml-common.h, "QK4_0" to "QK_K"). The safetensors dtypes F32, F16 and BF16 are
// the ones of the same name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

struct BlockFormat {
  std::string_view name;  // "Q4_K"
  uint32_t ggml_type;     // its number in a GGUF file
  int block_size;         // elements a block
  int block_bytes;
  void (*dequantize)(const std::byte* block, float* out);  // one block; neither pointer needs to be aligned
};

// nullptr: not one that we read.
const BlockFormat* find_format(uint32_t ggml_type);
const BlockFormat* find_format(std::string_view name);
// "Q2_K" for a type that ggml has and we don't read, else "number 99".
std::string ggml_type_name(uint32_t ggml_type);
std::string supported_formats();  // "F32, F16, ..."

// out [num_elements], a multiple of the block size.
void dequantize(const BlockFormat& format, const std::byte* bytes, int64_t num_elements, float* out);

}  // namespace tessera
