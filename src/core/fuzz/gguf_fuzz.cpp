#include "base/error.h"
#include "core/fuzz/fuzz_target.h"
#include "core/gguf.h"

void tessera::read_path(const std::filesystem::path& path) {
  const GgufFile file(path);
  for (const GgufTensor& tensor : file.tensors()) {
    std::vector<float> block(static_cast<size_t>(tensor.format->block_size));
    dequantize(*tensor.format, file.bytes(tensor).data(), tensor.format->block_size, block.data());
  }
  for (const std::string& key : file.keys()) {
    const auto look = [&](auto&& read) {
      try {
        read();
      } catch (const Error&) {  // of another type
      }
    };
    look([&] { file.text(key); });
    look([&] { file.integer(key); });
    look([&] { file.number(key); });
    look([&] { file.boolean(key); });
    look([&] { file.texts(key); });
    look([&] { file.integers(key); });
  }
}
