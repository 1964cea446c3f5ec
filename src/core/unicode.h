// What the tokenizer needs of Unicode: the regex classes \p{L}, \p{N} and \s, the valid part of a text, and NFC.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace tessera {

enum class CharClass : unsigned char { kLetter, kNumber, kNewline, kSpace, kOther };

// A character of valid UTF-8 and the bytes it takes. kNewline is \r and \n; \s is kNewline and kSpace.
struct Char {
  CharClass char_class;
  unsigned char num_bytes;
};

// The character at text[pos], with the classes that `tokenizers` (Oniguruma, Unicode 16) gives it. The text must be
// valid UTF-8 and pos < text.size().
Char char_at(std::string_view text, size_t pos);

// The length of the longest valid UTF-8 text at the start of `text`.
size_t valid_utf8_prefix(std::string_view text);

// False if a glance shows that the text is NFC already.
bool may_change_under_nfc(std::string_view valid_utf8);

// Normalisation form C of a valid UTF-8 text, in linear time whatever the text.
std::string to_nfc(std::string_view valid_utf8);

}  // namespace tessera
