// Cuts a text into the pieces that byte-pair encoding then works on, as the regular expressions of well-known
// tokenizers do, but written by hand: no regex library, one pass.
#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

enum class PreTokenizer {
  kTessera,  // Llama-3's rules without contractions, every digit alone
  kGpt2,     // a space goes with the word, number or punctuation after it
  kSmolLm2,  // GPT-2's rules between digits, every digit alone
  kLlama3,   // any character goes with the letters after it, digits by three
  kQwen,     // Llama-3's rules, every digit alone
  kLlama2,   // SentencePiece's: a word with the spaces before it; over characters, not bytes (tokenizer_file.h)
};

std::string_view name_of(PreTokenizer pre_tokenizer);
std::string supported_pre_tokenizers();

// The variant whose Split step has this regular expression.
std::optional<PreTokenizer> pre_tokenizer_of_regex(std::string_view regex);

// The variant as tokenizer.json's "pre_tokenizer".
nlohmann::json pre_tokenizer_json(PreTokenizer pre_tokenizer);

// SentencePiece's way of writing a space, and a text with spaces for it.
inline constexpr std::string_view kSpaceSign = "\u2581";
std::string with_spaces(std::string_view text);

// Where the piece that starts at `start` < text.size() ends. The text must be valid UTF-8.
size_t piece_end(PreTokenizer pre_tokenizer, std::string_view text, size_t start);

}  // namespace tessera
