#include "core/fuzz/fuzz_target.h"
#include "core/safetensors.h"

void tessera::read_path(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  for (const TensorInfo& tensor : file.tensors()) hash_hex(file.bytes(tensor));
}
