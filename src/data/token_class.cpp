#include "data/token_class.h"

#include <algorithm>

#include "base/error.h"
#include "data/ascii.h"

namespace tessera {
namespace {

int named(std::string_view name) {
  const auto it = std::find(kTokenClasses.begin(), kTokenClasses.end(), name);
  TESSERA_CHECK(it != kTokenClasses.end(), "no such token class");
  return static_cast<int>(it - kTokenClasses.begin());
}

}  // namespace

int token_class(std::string_view bytes) {
  const auto all = [](std::string_view s, auto is) { return std::all_of(s.begin(), s.end(), is); };
  if (bytes.empty() || std::any_of(bytes.begin(), bytes.end(), [](char c) { return (c & 0x80) != 0; }))
    return named("other");
  if (bytes.find('\n') != std::string_view::npos) return named("line end");
  if (all(bytes, is_space)) return named("indentation");
  const bool spaced = is_space(bytes.front());
  while (is_space(bytes.front())) bytes.remove_prefix(1);
  if (all(bytes, is_alpha)) {
    if (bytes.size() > 1 && all(bytes, is_upper)) return named("upper case");
    if (is_upper(bytes.front())) return named("capitalised");
    return named(spaced ? "word start" : "word piece");
  }
  if (all(bytes, is_digit)) return named("digit");
  if (bytes.find('_') != std::string_view::npos &&
      all(bytes, [](char c) { return is_alpha(c) || is_digit(c) || c == '_'; }))
    return named("identifier");
  const char first = bytes.front();
  if (std::string_view("()[]{}").find(first) != std::string_view::npos) return named("bracket");
  if (std::string_view(".,;:!?'\"`").find(first) != std::string_view::npos) return named("punctuation");
  if (std::string_view("+-*/=<>&|^~%$\\#@_").find(first) != std::string_view::npos) return named("operator");
  return named("other");
}

}  // namespace tessera
