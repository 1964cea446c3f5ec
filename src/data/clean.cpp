#include "data/clean.h"

#include "core/unicode.h"

namespace tessera {
namespace {

bool is_plain(std::string_view line) {  // printable ASCII and tabs
  for (const char c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && byte != '\t') || byte >= 0x7F) return false;
  }
  return true;
}

// Appends `line` without what can't be seen. Two- and three-byte sequences are compared as bytes.
void append_visible(std::string& out, std::string_view line) {
  for (size_t i = 0; i < line.size();) {
    const auto byte = static_cast<unsigned char>(line[i]);
    if (byte < 0x80) {
      if ((byte >= 0x20 && byte != 0x7F) || byte == '\t') out += line[i];
      ++i;
      continue;
    }
    const std::string_view rest = line.substr(i);
    const auto second = static_cast<unsigned char>(rest[1]);
    if (byte == 0xC2 && (second < 0xA0 || second == 0xAD)) {  // C1 controls, soft hyphen
      i += 2;
    } else if (rest.starts_with("\xC2\xA0")) {  // no-break space
      out += ' ';
      i += 2;
    } else if (rest.starts_with("\xEF\xBB\xBF") || rest.starts_with("\xE2\x80\x8B") ||
               rest.starts_with("\xE2\x81\xA0") || rest.starts_with("\xE2\x80\x8E") ||
               rest.starts_with("\xE2\x80\x8F")) {
      i += 3;  // byte-order mark, zero-width space, word joiner, direction marks
    } else {
      const size_t length = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
      out.append(rest.substr(0, length));
      i += length;
    }
  }
}

// The length of the line end at `at`, 0 if there is none. Form feeds separate pages, U+2028 and U+2029 lines.
size_t line_end(std::string_view text, size_t at) {
  switch (text[at]) {
    case '\n':
    case '\v':
    case '\f':
      return 1;
    case '\r':
      return at + 1 < text.size() && text[at + 1] == '\n' ? 2 : 1;
    case '\xE2': {
      const std::string_view rest = text.substr(at, 3);
      return rest == "\xE2\x80\xA8" || rest == "\xE2\x80\xA9" ? 3 : 0;
    }
    default:
      return 0;
  }
}

}  // namespace

TextKind text_kind(std::string_view domain) {
  if (domain == "code") return TextKind::kCode;
  if (domain == "mathematics" || domain == "math") return TextKind::kMathematics;
  return domain == "science" ? TextKind::kScience : TextKind::kProse;
}

std::string normalise(std::string_view text, TextKind kind) {
  const int max_blank_lines = kind == TextKind::kCode ? 2 : 1;
  std::string out;
  out.reserve(text.size() + 1);
  int blank_lines = 0;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin, skip = 0;
    while (end < text.size() && (skip = line_end(text, end)) == 0) ++end;
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + skip;
    const size_t line_at = out.size();
    if (is_plain(line)) {
      out += line;
    } else if (may_change_under_nfc(line)) {
      append_visible(out, to_nfc(line));
    } else {
      append_visible(out, line);
    }
    while (out.size() > line_at && (out.back() == ' ' || out.back() == '\t')) out.pop_back();
    if (out.size() == line_at) {
      ++blank_lines;
      continue;
    }
    if (line_at > 0 && blank_lines > 0)
      out.insert(line_at, static_cast<size_t>(std::min(blank_lines, max_blank_lines)), '\n');
    blank_lines = 0;
    out += '\n';
  }
  return out;
}

}  // namespace tessera
