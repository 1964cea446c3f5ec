#include "core/word_piece.h"

#include <utf8proc.h>

#include <limits>

#include "base/error.h"
#include "base/files.h"

namespace tessera {
namespace {

constexpr size_t kMaxWordCharacters = 100;  // a longer word is [UNK]

void append_utf8(int32_t code_point, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t count = utf8proc_encode_char(code_point, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

bool is_space(int32_t c) {
  if (c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85) return true;
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

// Control, format, private use and surrogates: dropped. \t, \n and \r are spaces.
bool is_dropped(int32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  if (c == 0 || c == 0xFFFD) return true;
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO ||
         category == UTF8PROC_CATEGORY_CS;
}

bool is_punctuation(int32_t c) {
  if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  const utf8proc_category_t category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

// The blocks that BERT calls CJK: each character is a word.
bool is_ideograph(int32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// Calls use(code point) for the canonical decomposition of a character, accents left out, in lower case.
template <class Use>
void fold(int32_t c, const Use& use) {
  utf8proc_int32_t parts[32];
  int boundary_class = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(c, parts, 32, UTF8PROC_DECOMPOSE, &boundary_class);
  for (utf8proc_ssize_t i = 0; i < count && i < 32; ++i) {
    if (utf8proc_category(parts[i]) != UTF8PROC_CATEGORY_MN) use(utf8proc_tolower(parts[i]));
  }
}

}  // namespace

WordPiece::WordPiece(const std::filesystem::path& vocabulary) {
  read_lines(vocabulary, [&](std::string_view piece, int64_t number) {
    if (!ids_.emplace(std::string(piece), static_cast<int32_t>(number - 1)).second) {
      throw Error(ErrorCode::kData, vocabulary.string() + ":" + std::to_string(number) + ": piece '" +
                                        std::string(piece) + "' is there twice");
    }
    return true;
  });
  const auto special = [&](const char* piece) {
    const auto found = ids_.find(std::string_view(piece));
    if (found == ids_.end()) {
      throw Error(ErrorCode::kData, vocabulary.string() + ": the piece " + piece + " is missing",
                  "it must be a BERT vocabulary");
    }
    return found->second;
  };
  unknown_ = special("[UNK]");
  begin_ = special("[CLS]");
  end_ = special("[SEP]");
}

// Longest piece first; a word that can't be cut into known pieces is [UNK] as a whole. Stops near `limit` pieces: what
// is beyond is cut anyway.
void WordPiece::add_word(std::string_view word, size_t limit, std::vector<int32_t>& out) const {
  if (word.empty()) return;
  size_t num_characters = 0;
  for (char byte : word) num_characters += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  const size_t before = out.size();
  if (num_characters > kMaxWordCharacters) {
    out.push_back(unknown_);
    return;
  }
  std::string piece;
  for (size_t begin = 0; begin < word.size();) {
    size_t end = word.size();
    for (; end > begin; --end) {
      if (end < word.size() && (static_cast<unsigned char>(word[end]) & 0xC0) == 0x80) continue;
      piece.assign(begin > 0 ? "##" : "").append(word.substr(begin, end - begin));
      const auto found = ids_.find(std::string_view(piece));
      if (found == ids_.end()) continue;
      out.push_back(found->second);
      break;
    }
    if (end == begin) {
      out.resize(before);
      out.push_back(unknown_);
      return;
    }
    begin = end;
  }
  if (out.size() > limit) out.resize(limit);
}

std::vector<int32_t> WordPiece::encode(std::string_view text, int max_tokens, Keep keep) const {
  TESSERA_CHECK(max_tokens >= 2, "[CLS] and [SEP] need room");
  const size_t most = static_cast<size_t>(max_tokens) - 1;  // before [SEP]
  const size_t limit = keep == Keep::kBeginning ? most : std::numeric_limits<size_t>::max();
  std::vector<int32_t> out = {begin_};
  std::string word;
  const auto flush = [&] {
    add_word(word, limit, out);
    word.clear();
  };
  for (size_t at = 0; at < text.size() && out.size() < limit;) {
    utf8proc_int32_t c = -1;
    const utf8proc_ssize_t length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                                     static_cast<utf8proc_ssize_t>(text.size() - at), &c);
    at += length > 0 ? static_cast<size_t>(length) : 1;
    if (length <= 0 || is_dropped(c)) continue;
    if (is_space(c)) {
      flush();
      continue;
    }
    if (is_ideograph(c)) flush();
    fold(c, [&](int32_t folded) {
      if (is_punctuation(folded)) {
        flush();
        append_utf8(folded, word);
        flush();
      } else if (is_space(folded)) {
        flush();
      } else {
        append_utf8(folded, word);
      }
    });
    if (is_ideograph(c)) flush();
  }
  if (out.size() < limit) flush();
  if (out.size() > most) out.erase(out.begin() + 1, out.end() - static_cast<int64_t>(most - 1));
  out.push_back(end_);
  return out;
}

}  // namespace tessera
