// Models of random weights, for benchmarks of speed.
#pragma once
#include <filesystem>

#include "core/hierarchy.h"

namespace tessera {

// Writes model.safetensors beside the folder's config.json: in f32, or with the bits that its "quantised" says. The
// weights are small enough that no output overflows; where no choice depends on them, rows of a matrix repeat after 64.
void write_random_weights(const std::filesystem::path& folder);
// The same with a config.json of this architecture, in f32 or, as `quantize` does it, 8 or 4 bits. The folder exists.
void write_random_model(const std::filesystem::path& folder, const Architecture& architecture, int bits = 0);

}  // namespace tessera
