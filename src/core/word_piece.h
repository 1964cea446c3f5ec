// BERT's tokenizer: normalisation, splitting at spaces and punctuation, greedy WordPiece (Devlin et al. 2018; Wu et al.
// 2016), as `tokenizers` does it for uncased models. The distillation teacher reads text through it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tessera {

class WordPiece {
 public:
  // `vocabulary` is a vocab.txt: one piece a line, its number the id. Throws Error{kData} when a special token is
  // missing or a piece is there twice.
  explicit WordPiece(const std::filesystem::path& vocabulary);

  // [CLS] pieces [SEP], at most `max_tokens` (at least 2) in all: what is longer loses its end, or its beginning. Bytes
  // that are no UTF-8 count as U+FFFD and are dropped. Thread-safe.
  enum class Keep { kBeginning, kEnd };
  std::vector<int32_t> encode(std::string_view text, int max_tokens, Keep keep = Keep::kBeginning) const;
  int vocab_size() const { return static_cast<int>(ids_.size()); }

 private:
  void add_word(std::string_view word, size_t limit, std::vector<int32_t>& out) const;

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  int32_t unknown_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace tessera
