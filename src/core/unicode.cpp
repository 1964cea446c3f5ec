#include "core/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace tessera {
namespace {

struct Range {
  int32_t first, last;
};

// Debian's utf8proc knows Unicode 15.0, `tokenizers` knows 16: the letters and numbers assigned in between, sorted.
constexpr Range kNewLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
    {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
    {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
    {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D},
};
constexpr Range kNewNumbers[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
    {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA},
};

template <size_t kSize>
bool contains(const Range (&ranges)[kSize], int32_t code_point) {
  const Range* range = std::lower_bound(std::begin(ranges), std::end(ranges), code_point,
                                        [](const Range& r, int32_t value) { return r.last < value; });
  return range != std::end(ranges) && range->first <= code_point;
}

CharClass classify(int32_t code_point) {
  switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_CC:
      if (code_point == '\r' || code_point == '\n') return CharClass::kNewline;
      return code_point == '\t' || code_point == '\v' || code_point == '\f' || code_point == 0x85 ? CharClass::kSpace
                                                                                                  : CharClass::kOther;
    case UTF8PROC_CATEGORY_CN:
      if (contains(kNewLetters, code_point)) return CharClass::kLetter;
      return contains(kNewNumbers, code_point) ? CharClass::kNumber : CharClass::kOther;
    default:
      return CharClass::kOther;
  }
}

const std::array<CharClass, 128> kAsciiClasses = [] {
  std::array<CharClass, 128> classes{};
  for (int32_t c = 0; c < 128; ++c) classes[c] = classify(c);
  return classes;
}();

}  // namespace

Char char_at(std::string_view text, size_t pos) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + pos;
  if (p[0] < 0x80) return {kAsciiClasses[p[0]], 1};
  if (p[0] < 0xE0) return {classify((p[0] & 0x1F) << 6 | (p[1] & 0x3F)), 2};
  if (p[0] < 0xF0) return {classify((p[0] & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F)), 3};
  return {classify((p[0] & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F)), 4};
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    uint64_t eight_bytes = 0;
    if (text.size() - pos >= 8) {
      std::memcpy(&eight_bytes, text.data() + pos, 8);
      if ((eight_bytes & 0x8080808080808080u) == 0) {
        pos += 8;
        continue;
      }
    }
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    int32_t code_point;
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + pos;
    utf8proc_ssize_t num_bytes = utf8proc_iterate(bytes, std::min<size_t>(text.size() - pos, 4), &code_point);
    if (num_bytes <= 0) break;
    pos += num_bytes;
  }
  return pos;
}

bool may_change_under_nfc(std::string_view text) {
  // Every character below U+0300, whose first byte is 0xCC, is NFC whatever surrounds it.
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

// utf8proc_map does the same, but orders a run of marks in quadratic time: a text of nothing else would stop a server.
std::string to_nfc(std::string_view text) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  std::vector<int32_t> code_points;
  code_points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    int32_t code_point, decomposed[16], unused_boundary = 0;
    pos += utf8proc_iterate(bytes + pos, std::min<size_t>(text.size() - pos, 4), &code_point);
    utf8proc_ssize_t count = utf8proc_decompose_char(code_point, decomposed, 16, options, &unused_boundary);
    TESSERA_CHECK(count > 0 && count <= 16, "decomposition of a valid character");
    code_points.insert(code_points.end(), decomposed, decomposed + count);
  }

  auto combining_class = [](int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (size_t start = 0; start < code_points.size();) {
    size_t end = start;
    while (end < code_points.size() && combining_class(code_points[end]) > 0) ++end;
    if (end - start > 1) {
      std::stable_sort(code_points.begin() + start, code_points.begin() + end,
                       [&](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    }
    start = end + 1;
  }

  utf8proc_ssize_t count = utf8proc_normalize_utf32(code_points.data(), code_points.size(), options);
  TESSERA_CHECK(count >= 0, "composition");
  std::string result;
  result.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    utf8proc_uint8_t encoded[4];
    result.append(reinterpret_cast<char*>(encoded), utf8proc_encode_char(code_points[i], encoded));
  }
  return result;
}

}  // namespace tessera
