#include <stdlib.h>

#include "core/fuzz/fuzz_target.h"
#include "core/import_source.h"
#include "core/safetensors.h"

namespace fs = std::filesystem;

// config.json of a folder that has weights: whatever passes is read to the end.
void tessera::read_path(const fs::path& path) {
  static const fs::path folder = [&path] {
    std::string name = (fs::temp_directory_path() / "tessera-fuzz-XXXXXX").string();
    if (!::mkdtemp(name.data())) std::abort();
    write_safetensors(fs::path(name) / "model.safetensors", {}, {});
    fs::create_symlink(path, fs::path(name) / "config.json");  // every call has the same path
    return fs::path(name);
  }();
  open_hugging_face_source(folder);
}
