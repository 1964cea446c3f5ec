// Text as it should have been written: one Unicode form, no wrapping that gives its origin away.
#pragma once
#include <string>
#include <string_view>

namespace tessera {

// What the rules of cleaning and quality depend on.
enum class TextKind { kCode, kMathematics, kScience, kProse };

// "code", "mathematics", "science"; every other domain, a user's own too, is treated as prose.
TextKind text_kind(std::string_view domain);

// NFC; LF line ends; no control, zero-width or byte-order characters; no trailing spaces; at most one blank line in a
// row (two in code); no blank lines at the ends, one final newline. The text must be valid UTF-8.
std::string normalise(std::string_view text, TextKind kind);

// For texts other than code: HTML tags, comments and entities, reStructuredText directives, roles, labels and heading
// rules become the plain text that they wrap.
std::string strip_markup(std::string_view text);

// Drops what says nothing but whose it is. In code: comment blocks before the first statement which name a copyright or
// a licence. In other texts: paragraphs of well-known licences, lines of copyright.
std::string strip_licence(std::string_view text, TextKind kind);

// Code whose first comments say that a program wrote it (looked for before the header is stripped).
bool says_generated(std::string_view text);

}  // namespace tessera
