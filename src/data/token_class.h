// What kind of token this is, from its bytes: the classes that the atlas says components are picked for.
#pragma once
#include <array>
#include <string_view>

namespace tessera {

// "word start" begins with a blank or stands for a whole lower-case word's beginning; "word piece" goes on with one.
inline constexpr std::array<const char*, 12> kTokenClasses = {"line end",    "indentation", "word start", "word piece",
                                                              "capitalised", "upper case",  "digit",      "identifier",
                                                              "punctuation", "bracket",     "operator",   "other"};

// Index into kTokenClasses. A token of several kinds belongs to the first that fits in this order: other (bytes that
// are no ASCII, or none), line end (has a newline), indentation (only blanks), identifier (letters or digits with "_"),
// digit, words, then by its first character that is no blank.
int token_class(std::string_view bytes);

}  // namespace tessera
