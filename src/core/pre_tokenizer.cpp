#include "core/pre_tokenizer.h"

#include <algorithm>
#include <array>

#include "core/unicode.h"

namespace tessera {
namespace {

struct Variant {
  PreTokenizer id;
  std::string_view name;
  std::string_view regex;  // of the Split step; empty: the variant has none
};

constexpr std::array<Variant, 6> kVariants{{
    {PreTokenizer::kTessera, "tessera",
     R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::kGpt2, "gpt2", ""},
    {PreTokenizer::kSmolLm2, "smollm2", ""},
    {PreTokenizer::kLlama3, "llama3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::kQwen, "qwen",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::kLlama2, "llama2", ""},
}};

bool is_space(CharClass c) { return c == CharClass::kSpace || c == CharClass::kNewline; }

// Reads one piece. Each rule is an alternative of the regular expression it names, tried in the regex's order; a
// regex that backtracks comes to the same because the classes exclude each other.
class PieceReader {
 public:
  PieceReader(std::string_view text, size_t start) : text_(text), start_(start), first_(char_at(text, start)) {
    second_pos_ = start + first_.num_bytes;
  }

  // '(?:s|t|re|ve|m|ll|d), where a folded 's is also the long s (U+017F). 0: no match.
  size_t contraction(bool ignore_case) const {
    if (text_[start_] != '\'') return 0;
    auto at = [&](size_t pos) -> char {
      if (pos >= text_.size()) return '\0';
      char c = text_[pos];
      return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    char a = at(start_ + 1), b = at(start_ + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return start_ + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return start_ + 3;
    if (ignore_case && text_.substr(start_ + 1, 2) == "\u017F") return start_ + 3;
    return 0;
  }

  // GPT-2:  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  // With digits_alone the text was first cut around each digit: no piece looks beyond one.
  size_t gpt2(bool digits_alone) const {
    if (size_t end = contraction(false)) return end;
    if (digits_alone && first_.char_class == CharClass::kNumber) return second_pos_;
    if (!is_space(first_.char_class)) return run_end(second_pos_, first_.char_class);
    if (text_[start_] == ' ' && second_pos_ < text_.size()) {
      Char second = char_at(text_, second_pos_);
      bool joins = !is_space(second.char_class) && !(digits_alone && second.char_class == CharClass::kNumber);
      if (joins) return run_end(second_pos_, second.char_class);
    }
    return spaces(read_spaces(), digits_alone);
  }

  // Llama-3, after the contractions:
  // [^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  size_t llama3(int max_digits) const {
    if (first_.char_class == CharClass::kLetter) return run_end(second_pos_, CharClass::kLetter);
    if (first_.char_class == CharClass::kNumber) return run_end(second_pos_, CharClass::kNumber, max_digits - 1);
    if (first_.char_class != CharClass::kNewline && class_at(second_pos_) == CharClass::kLetter)
      return run_end(second_pos_, CharClass::kLetter);
    bool space_before_other = text_[start_] == ' ' && second_pos_ < text_.size() &&
                              char_at(text_, second_pos_).char_class == CharClass::kOther;
    if (first_.char_class == CharClass::kOther || space_before_other) {
      size_t end = run_end(second_pos_, CharClass::kOther);
      while (end < text_.size() && (text_[end] == '\r' || text_[end] == '\n')) ++end;
      return end;
    }
    Spaces run = read_spaces();
    return run.newline_end > 0 ? run.newline_end : spaces(run, false);
  }

 private:
  struct Spaces {
    size_t end;          // of the whole run of \s
    size_t last_start;   // of its last character
    size_t newline_end;  // after its last \r or \n; 0: none
  };

  // At the end of the text: kSpace, which no rule that asks has a use for.
  CharClass class_at(size_t pos) const {
    return pos < text_.size() ? char_at(text_, pos).char_class : CharClass::kSpace;
  }

  size_t run_end(size_t pos, CharClass char_class, size_t max_chars = static_cast<size_t>(-1)) const {
    for (; max_chars > 0 && pos < text_.size(); --max_chars) {
      Char c = char_at(text_, pos);
      if (c.char_class != char_class) break;
      pos += c.num_bytes;
    }
    return pos;
  }

  Spaces read_spaces() const {
    Spaces run{start_, start_, 0};
    while (run.end < text_.size()) {
      Char c = char_at(text_, run.end);
      if (!is_space(c.char_class)) break;
      run.last_start = run.end;
      run.end += c.num_bytes;
      if (c.char_class == CharClass::kNewline) run.newline_end = run.end;
    }
    return run;
  }

  // \s+(?!\S)|\s+ : the last space of a run is left to what follows it, unless it is the only one.
  size_t spaces(const Spaces& run, bool digits_end_text) const {
    bool at_end = run.end == text_.size() || (digits_end_text && class_at(run.end) == CharClass::kNumber);
    return at_end || run.last_start == start_ ? run.end : run.last_start;
  }

  std::string_view text_;
  size_t start_;
  Char first_;
  size_t second_pos_;
};

}  // namespace

std::string_view name_of(PreTokenizer pre_tokenizer) { return kVariants[static_cast<size_t>(pre_tokenizer)].name; }

std::string supported_pre_tokenizers() {
  std::string names;
  for (const Variant& variant : kVariants) names.append(names.empty() ? "" : ", ").append(variant.name);
  return names;
}

std::optional<PreTokenizer> pre_tokenizer_of_regex(std::string_view regex) {
  for (const Variant& variant : kVariants) {
    if (!variant.regex.empty() && variant.regex == regex) return variant.id;
  }
  return std::nullopt;
}

nlohmann::json pre_tokenizer_json(PreTokenizer pre_tokenizer) {
  if (pre_tokenizer == PreTokenizer::kLlama2) return nullptr;
  const std::string regex(kVariants[static_cast<size_t>(pre_tokenizer)].regex);
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", regex.empty()}};
  if (pre_tokenizer == PreTokenizer::kGpt2) return byte_level;
  nlohmann::json first = {{"type", "Digits"}, {"individual_digits", true}};
  if (!regex.empty())
    first = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {first, byte_level}}};
}

std::string with_spaces(std::string_view text) {
  std::string result;
  for (size_t sign; (sign = text.find(kSpaceSign)) != text.npos; text.remove_prefix(sign + kSpaceSign.size()))
    result.append(text.substr(0, sign)).append(1, ' ');
  return result.append(text);
}

size_t piece_end(PreTokenizer pre_tokenizer, std::string_view text, size_t start) {
  if (pre_tokenizer == PreTokenizer::kLlama2) {
    const size_t word = text.find_first_not_of(' ', start);
    return word == text.npos ? text.size() : std::min(text.find(' ', word), text.size());
  }
  PieceReader reader(text, start);
  switch (pre_tokenizer) {
    case PreTokenizer::kTessera:
      return reader.llama3(1);
    case PreTokenizer::kGpt2:
      return reader.gpt2(false);
    case PreTokenizer::kSmolLm2:
      return reader.gpt2(true);
    case PreTokenizer::kLlama3:
    case PreTokenizer::kQwen:
      if (size_t end = reader.contraction(true)) return end;
      return reader.llama3(pre_tokenizer == PreTokenizer::kLlama3 ? 3 : 1);
    case PreTokenizer::kLlama2:
      break;
  }
  return text.size();
}

}  // namespace tessera
