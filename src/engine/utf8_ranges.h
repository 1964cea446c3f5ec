// Ranges of characters as sequences of byte ranges, so that a grammar can match bytes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tessera::engine {

constexpr uint32_t kLastCharacter = 0x10FFFF;

struct ByteRange {
  uint8_t low, high;
};

struct CharacterRange {
  uint32_t first, last;
};

std::string utf8(uint32_t character);
// Sequences whose texts are exactly the characters of the ranges, surrogates left out. In any order, overlapping or
// not.
std::vector<std::vector<ByteRange>> utf8_sequences(std::vector<CharacterRange> ranges);
// All characters that are in none of the ranges.
std::vector<CharacterRange> other_characters(std::vector<CharacterRange> ranges);

}  // namespace tessera::engine
