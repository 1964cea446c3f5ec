#include "engine/utf8_ranges.h"

#include <algorithm>

namespace tessera::engine {

std::string utf8(uint32_t c) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

namespace {

// Cut where the length changes, and then until all bytes after the first that differs run over all of 80..BF.
void add_sequences(uint32_t first, uint32_t last, std::vector<std::vector<ByteRange>>& out) {
  for (const uint32_t end : {0x7Fu, 0x7FFu, 0xFFFFu}) {
    if (first <= end && last > end) {
      add_sequences(first, end, out);
      add_sequences(end + 1, last, out);
      return;
    }
  }
  const size_t length = utf8(first).size();
  for (size_t tail = 1; tail < length; ++tail) {
    const uint32_t mask = (1u << (6 * tail)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      add_sequences(first, first | mask, out);
      add_sequences((first | mask) + 1, last, out);
      return;
    }
    if ((last & mask) != mask) {
      add_sequences(first, (last & ~mask) - 1, out);
      add_sequences(last & ~mask, last, out);
      return;
    }
  }
  const std::string low = utf8(first), high = utf8(last);
  std::vector<ByteRange> bytes;
  for (size_t i = 0; i < length; ++i) bytes.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  out.push_back(std::move(bytes));
}

std::vector<CharacterRange> merged(std::vector<CharacterRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const CharacterRange& a, const CharacterRange& b) { return a.first < b.first; });
  std::vector<CharacterRange> out;
  for (const CharacterRange& range : ranges) {
    if (!out.empty() && range.first <= out.back().last + 1) {
      out.back().last = std::max(out.back().last, range.last);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

}  // namespace

std::vector<std::vector<ByteRange>> utf8_sequences(std::vector<CharacterRange> ranges) {
  std::vector<std::vector<ByteRange>> out;
  for (const CharacterRange& range : merged(std::move(ranges))) {
    if (range.first < 0xD800) add_sequences(range.first, std::min(range.last, 0xD7FFu), out);
    if (range.last > 0xDFFF) add_sequences(std::max(range.first, 0xE000u), range.last, out);
  }
  return out;
}

std::vector<CharacterRange> other_characters(std::vector<CharacterRange> ranges) {
  std::vector<CharacterRange> out;
  uint32_t from = 0;
  for (const CharacterRange& range : merged(std::move(ranges))) {
    if (range.first > from) out.push_back({from, range.first - 1});
    from = range.last + 1;
  }
  if (from <= kLastCharacter) out.push_back({from, kLastCharacter});
  return out;
}

}  // namespace tessera::engine
