// Reads tokenizer.json, checks all of it, and leaves plain tables. What we don't read is refused by name.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bpe.h"
#include "core/pre_tokenizer.h"

namespace tessera {

struct AddedToken {
  int32_t id;
  std::string text;
  bool special;     // matched only when asked for, left out of decoded text
  bool normalized;  // matched in the normalised text, not in the raw one
};

struct TokenizerFile {
  PreTokenizer pre_tokenizer;
  bool nfc;            // texts are normalised to NFC
  bool ignore_merges;  // a piece that is in the vocabulary is one token, whatever the merges say (Llama-3)
  std::vector<std::string> token_bytes;  // by id; empty for an id that no token has
  std::vector<int32_t> model_tokens;     // the ids in model.vocab
  std::vector<Merge> merges;             // by rank
  std::array<int32_t, 256> byte_tokens;  // -1: none, which only SmolLM2's file may have
  std::vector<AddedToken> added_tokens;
};

// Throws Error{kData} that begins with `what` and names the key.
TokenizerFile read_tokenizer_file(std::string_view json, const std::string& what);

}  // namespace tessera
