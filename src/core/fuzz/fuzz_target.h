// libFuzzer's entry for a reader of files. Each program links one of *_fuzz.cpp, which defines read_path.
// Needs Debian's clang-16 and libclang-rt-16-dev.
//   cmake --preset fuzz && ninja -C build/fuzz && build/fuzz/gguf_fuzz -max_total_time=60 src/core/fuzz/corpus/gguf
#pragma once
#include <filesystem>

namespace tessera {

// Reads the file and looks at all of it. Throws Error when it is malformed; anything else is a finding.
void read_path(const std::filesystem::path& path);

}  // namespace tessera
