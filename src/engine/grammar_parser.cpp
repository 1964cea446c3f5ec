// From the notation to rules over bytes.
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "engine/grammar.h"
#include "engine/utf8_ranges.h"

namespace tessera::engine {
namespace {

constexpr size_t kMostSymbols = 1'000'000;
constexpr int kMostNested = 200;

using Symbol = Grammar::Symbol;
using Alternative = Grammar::Alternative;

Alternative byte_sequence(std::string_view bytes) {
  Alternative symbols;
  for (char c : bytes) symbols.push_back({-1, static_cast<uint8_t>(c), static_cast<uint8_t>(c)});
  return symbols;
}

}  // namespace

// Recursive descent, one function a level of the notation.
class GrammarParser {
 public:
  GrammarParser(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  Grammar parse() {
    skip_space(true);
    while (at_ < text_.size()) {
      const std::string name = parse_name();
      skip_space(false);
      expect("::=");
      const int32_t rule = rule_of(name);
      if (is_defined_[static_cast<size_t>(rule)]) fail("rule '" + name + "' is defined twice");
      skip_space(true);
      std::vector<Alternative> alternatives = parse_alternatives(0);
      grammar_.rules_[static_cast<size_t>(rule)] = std::move(alternatives);
      is_defined_[static_cast<size_t>(rule)] = true;
      if (at_ < text_.size() && text_[at_] != '\n') fail("expected the end of the rule");
      skip_space(true);
    }
    for (const auto& [name, rule] : names_) {
      if (!is_defined_[static_cast<size_t>(rule)]) fail("there is no rule '" + name + "'");
    }
    const auto root = names_.find("root");
    if (root == names_.end()) fail("there is no rule 'root'");
    grammar_.root_ = root->second;
    refuse_left_recursion();
    return std::move(grammar_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(std::min(at_, text_.size())), '\n');
    throw Error(ErrorCode::kUsage, fmt::format("{}: line {}: {}", what_, line, problem),
                "a rule is NAME ::= \"text\" [a-z]* ( other | rule ); the whole text is the rule 'root'");
  }
  bool starts(std::string_view piece) const { return text_.substr(at_).starts_with(piece); }
  void expect(std::string_view piece) {
    if (!starts(piece)) fail("expected '" + std::string(piece) + "'");
    at_ += piece.size();
  }
  void skip_space(bool over_lines) {
    while (at_ < text_.size()) {
      if (text_[at_] == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r' || (over_lines && text_[at_] == '\n')) {
        ++at_;
      } else {
        return;
      }
    }
  }
  static bool is_of_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  std::string parse_name() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_of_name(text_[at_])) ++at_;
    if (at_ == begin) fail("expected a rule's name");
    return std::string(text_.substr(begin, at_ - begin));
  }
  int32_t new_rule() {
    grammar_.rules_.emplace_back();
    is_defined_.push_back(false);
    return static_cast<int32_t>(grammar_.rules_.size() - 1);
  }
  int32_t rule_of(const std::string& name) {
    const auto it = names_.find(name);
    return it != names_.end() ? it->second : names_[name] = new_rule();
  }
  // A rule that has no name, called in place.
  Symbol define(std::vector<Alternative> alternatives) {
    const int32_t rule = new_rule();
    for (const Alternative& alternative : alternatives) count(alternative.size() + 1);
    grammar_.rules_[static_cast<size_t>(rule)] = std::move(alternatives);
    is_defined_[static_cast<size_t>(rule)] = true;
    return {rule, 0, 0};
  }
  void count(size_t symbols) {
    num_symbols_ += symbols;
    if (num_symbols_ > kMostSymbols) fail("the grammar comes to more than a million symbols");
  }

  std::vector<Alternative> parse_alternatives(int nested) {
    if (nested > kMostNested) fail("groups are nested more than 200 deep");
    std::vector<Alternative> alternatives = {parse_sequence(nested)};
    while (starts("|")) {
      ++at_;
      skip_space(true);
      alternatives.push_back(parse_sequence(nested));
    }
    return alternatives;
  }
  Alternative parse_sequence(int nested) {
    Alternative sequence;
    while (at_ < text_.size()) {
      Alternative item;
      if (starts("\"")) {
        item = parse_literal();
      } else if (starts("[")) {
        item = {parse_class()};
      } else if (starts(".")) {
        ++at_;
        item = {characters({{0, kLastCharacter}})};
      } else if (starts("(")) {
        ++at_;
        skip_space(true);
        item = {define(parse_alternatives(nested + 1))};
        expect(")");
      } else if (is_of_name(text_[at_])) {
        item = {Symbol{rule_of(parse_name()), 0, 0}};
      } else {
        break;
      }
      item = parse_repetition(std::move(item));
      count(item.size());
      sequence.insert(sequence.end(), item.begin(), item.end());
      skip_space(nested > 0);
    }
    return sequence;
  }

  // Any number of it: R ::= item R | nothing.
  Symbol any_number(const Alternative& item) {
    const int32_t rule = new_rule();
    Alternative more = item;
    more.push_back({rule, 0, 0});
    count(more.size());
    grammar_.rules_[static_cast<size_t>(rule)] = {more, {}};
    is_defined_[static_cast<size_t>(rule)] = true;
    return {rule, 0, 0};
  }
  Alternative parse_repetition(Alternative item) {
    uint32_t least = 1;
    std::optional<uint32_t> most = 1;
    if (starts("*")) {
      ++at_;
      least = 0, most = std::nullopt;
    } else if (starts("+")) {
      ++at_;
      most = std::nullopt;
    } else if (starts("?")) {
      ++at_;
      least = 0;
    } else if (starts("{")) {
      ++at_;
      least = parse_number();
      most = least;
      if (starts(",")) {
        ++at_;
        most = starts("}") ? std::nullopt : std::optional(parse_number());
      }
      expect("}");
      if (most && *most < least) fail("a repetition's most is less than its least");
    } else {
      return item;
    }
    Alternative out;
    for (uint32_t i = 0; i < least; ++i) {
      count(item.size());
      out.insert(out.end(), item.begin(), item.end());
    }
    if (!most) {
      out.push_back(any_number(item));
    } else {  // item (item (item)?)?
      std::optional<Symbol> rest;
      for (uint32_t i = least; i < *most; ++i) {
        Alternative longer = item;
        if (rest) longer.push_back(*rest);
        rest = define({longer, {}});
      }
      if (rest) out.push_back(*rest);
    }
    return out;
  }
  uint32_t parse_number() {
    uint32_t value = 0;
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
      if (value > 10'000) fail("a repetition of more than 10,000");
    }
    if (at_ == begin) fail("expected a number");
    return value;
  }

  Alternative parse_literal() {
    ++at_;
    std::string bytes;
    while (!starts("\"")) bytes += utf8(parse_character());
    ++at_;
    count(bytes.size());
    return byte_sequence(bytes);
  }
  Symbol parse_class() {
    ++at_;
    const bool negated = starts("^");
    if (negated) ++at_;
    std::vector<CharacterRange> ranges;
    while (!starts("]")) {
      const uint32_t first = parse_character();
      uint32_t last = first;
      if (starts("-") && !text_.substr(at_).starts_with("-]")) {
        ++at_;
        last = parse_character();
        if (last < first) fail("a range of characters that runs backwards");
      }
      ranges.push_back({first, last});
    }
    ++at_;
    if (negated) ranges = other_characters(std::move(ranges));
    return characters(std::move(ranges));
  }
  Symbol characters(std::vector<CharacterRange> ranges) {
    std::vector<Alternative> sequences;
    for (const std::vector<ByteRange>& bytes : utf8_sequences(std::move(ranges))) {
      sequences.emplace_back();
      for (const ByteRange& byte : bytes) sequences.back().push_back({-1, byte.low, byte.high});
    }
    if (sequences.empty()) fail("a class without characters");
    if (sequences.size() == 1 && sequences[0].size() == 1) return sequences[0][0];
    return define(std::move(sequences));
  }
  uint32_t parse_character() {
    if (at_ >= text_.size() || text_[at_] == '\n') fail("a literal or class that doesn't end on its line");
    if (text_[at_] == '\\') return parse_escape();
    const uint8_t lead = static_cast<uint8_t>(text_[at_]);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : (lead & 0xF0) == 0xE0       ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    if (length == 0 || at_ + length > text_.size()) fail("bytes that are no UTF-8");
    uint32_t c = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i) {
      const uint8_t byte = static_cast<uint8_t>(text_[at_ + i]);
      if ((byte & 0xC0) != 0x80) fail("bytes that are no UTF-8");
      c = (c << 6) | (byte & 0x3F);
    }
    if (c > kLastCharacter) fail("bytes that are no UTF-8");
    at_ += length;
    return c;
  }
  uint32_t parse_escape() {
    if (++at_ >= text_.size()) fail("a backslash at the end");
    const char c = text_[at_++];
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return parse_hex(2);
      case 'u':
        return parse_hex(4);
      case 'U':
        return parse_hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<uint32_t>(c);
      default:
        --at_;
        fail(std::string("unknown escape '\\") + c + "'");
    }
  }
  uint32_t parse_hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const char c = at_ < text_.size() ? text_[at_] : ' ';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("expected " + std::to_string(digits) + " hexadecimal digits");
      value = value * 16 + static_cast<uint32_t>(digit);
      ++at_;
    }
    if (value > kLastCharacter) fail("a character beyond U+10FFFF");
    return value;
  }

  // A rule that can call itself before any byte would be called for ever.
  void refuse_left_recursion() const {
    const auto& rules = grammar_.rules_;
    std::vector<uint8_t> is_empty(rules.size(), 0);  // can match nothing
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t r = 0; r < rules.size(); ++r) {
        if (is_empty[r]) continue;
        for (const Alternative& alternative : rules[r]) {
          if (std::all_of(alternative.begin(), alternative.end(),
                          [&](const Symbol& s) { return s.rule >= 0 && is_empty[static_cast<size_t>(s.rule)]; })) {
            is_empty[r] = 1;
            changed = true;
            break;
          }
        }
      }
    }
    // Depth first, without recursion: a long repetition is a long chain.
    std::vector<std::vector<size_t>> first_calls(rules.size());
    for (size_t r = 0; r < rules.size(); ++r) {
      for (const Alternative& alternative : rules[r]) {
        for (const Symbol& symbol : alternative) {
          if (symbol.rule < 0) break;
          first_calls[r].push_back(static_cast<size_t>(symbol.rule));
          if (!is_empty[static_cast<size_t>(symbol.rule)]) break;
        }
      }
    }
    enum : uint8_t { kNew, kOpen, kDone };
    std::vector<uint8_t> state(rules.size(), kNew);
    for (size_t start = 0; start < rules.size(); ++start) {
      std::vector<std::pair<size_t, size_t>> path;  // rule, calls tried
      if (state[start] == kNew) path.push_back({start, 0}), state[start] = kOpen;
      while (!path.empty()) {
        auto& [rule, tried] = path.back();
        if (tried == first_calls[rule].size()) {
          state[rule] = kDone;
          path.pop_back();
          continue;
        }
        const size_t called = first_calls[rule][tried++];
        if (state[called] == kOpen)
          fail("left recursion" + name_of(called) +
               ": a rule calls itself before any text, or * or + repeats what may be empty");
        if (state[called] == kNew) path.push_back({called, 0}), state[called] = kOpen;
      }
    }
  }
  std::string name_of(size_t rule) const {
    for (const auto& [name, r] : names_) {
      if (static_cast<size_t>(r) == rule) return " in rule '" + name + "'";
    }
    return "";
  }

  std::string_view text_;
  std::string what_;
  size_t at_ = 0, num_symbols_ = 0;
  Grammar grammar_;
  std::map<std::string, int32_t> names_;
  std::vector<bool> is_defined_;
};

Grammar Grammar::parse(std::string_view text, const std::string& what) { return GrammarParser(text, what).parse(); }

Grammar Grammar::json() {
  return parse(R"(root   ::= value
value  ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" s (member ("," s member)*)? "}"
member ::= string s ":" s value s
array  ::= "[" s (value s ("," s value s)*)? "]"
string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [+\-]? [0-9]+)?
s      ::= [ \n\t]?
)",
               "the JSON grammar");
}

}  // namespace tessera::engine
