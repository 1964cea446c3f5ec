// What the readers of import.h have in common: a source's tensors by its own names, and how ours are made of them.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/dequantize.h"
#include "core/hierarchy.h"

namespace tessera {

class MappedFile;

inline constexpr int kMostRotations = 1 << 14;  // of a head; checked before there is memory for them

struct SourceTensor {
  const BlockFormat* format;
  std::vector<int64_t> shape;  // outermost first
  std::span<const std::byte> bytes;
};

// The source's names for ours. "{}" is the component; a name without it is the stack [N, ...] of all components.
struct SourceNames {
  std::string embedding, final_norm, head;
  std::string layer;                                         // "blk.{}."
  std::map<std::string, std::vector<std::string>> in_layer;  // ours behind "layers.N." -> theirs, one below the other
  bool interleaved_rope = false;  // a head's rows of query and key: (0, half, 1, half + 1, ...), as llama.cpp has them
};

struct ImportSource {
  std::string what;  // the file or folder, for messages
  Architecture architecture;
  SourceNames names;
  std::map<std::string, SourceTensor> tensors;
  std::vector<std::string> ignored;           // endings of names that are in the source and have nothing to tell
  std::string tokenizer_json, chat_template;  // empty: none; import_model drops a tokenizer that we don't read
  std::string no_tokenizer;                   // why there is none
  std::vector<int32_t> eos_tokens;
  Json origin;
  std::vector<std::shared_ptr<const void>> open_files;  // own the bytes
  std::vector<const MappedFile*> maps;                  // of them
};

ImportSource open_gguf_source(const std::filesystem::path& file);
ImportSource open_hugging_face_source(const std::filesystem::path& folder);

// tokenizer.json from a GGUF file's tokenizer.ggml.* keys. Throws Error{kData} naming the key, also for kinds that we
// don't read.
class GgufFile;
std::string tokenizer_json_of_gguf(const GgufFile& file);

}  // namespace tessera
