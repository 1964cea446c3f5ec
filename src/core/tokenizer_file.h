// Reads tokenizer.json, checks all of it, and leaves plain tables. What we don't read is refused by name.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
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

// SentencePiece's BPE writes a space as U+2581, often puts one in front of a text, works on characters, and has tokens
// "<0x00>" to "<0xFF>" for the bytes of those that have none (kLlama2: Llama-2, Mistral, Mixtral, TinyLlama).
enum class SpaceInFront {
  kNone,
  kEvery,         // of every text and what follows an added token
  kEveryMissing,  // the same where there is none yet
  kFirstMissing,  // of a text where there is none yet
};

struct TokenizerFile {
  PreTokenizer pre_tokenizer;
  SpaceInFront space_in_front;
  bool nfc;            // texts are normalised to NFC
  bool ignore_merges;  // a piece that is in the vocabulary is one token, whatever the merges say (Llama-3)
  std::vector<std::string> token_bytes;                           // by id; empty for an id that no token has
  std::vector<int32_t> model_tokens;                              // the ids in model.vocab
  std::vector<Merge> merges;                                      // by rank
  std::array<int32_t, 256> byte_tokens;                           // -1: none, which only SmolLM2's file may have
  std::vector<std::pair<std::string, int32_t>> character_tokens;  // kLlama2's, which byte_tokens stand in for
  std::vector<AddedToken> added_tokens;
};

// Throws Error{kData} that begins with `what` and names the key.
TokenizerFile read_tokenizer_file(std::string_view json, const std::string& what);

}  // namespace tessera
