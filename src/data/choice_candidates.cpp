// Where a document says something in words and then in code or in a formula: candidates for multiple_choice.h.
#include <algorithm>

#include "base/log.h"
#include "data/ascii.h"
#include "data/multiple_choice.h"
#include "data/sample.h"

namespace tessera {
namespace {

constexpr size_t kMaxContext = 400, kMinContext = 60;  // bytes
constexpr size_t kMaxAnswer = 200, kMinAnswer = 40, kMinFormula = 14;

using Lines = std::vector<std::string_view>;

bool is_name(char c) { return is_alnum(c) || c == '_' || c == '.' || c == ':'; }

Lines split_lines(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return s;
}

size_t indent_of(std::string_view line) { return std::min(line.find_first_not_of(" \t"), line.size()); }
bool is_blank(std::string_view line) { return trim(line).empty(); }

std::string_view slice(std::string_view from, std::string_view to) {  // both views of one text, `to` behind `from`
  return {from.data(), static_cast<size_t>(to.data() + to.size() - from.data())};
}

// Words of letters only (punctuation at their ends aside).
int count_words(std::string_view text) {
  int words = 0;
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    const size_t begin = i;
    while (i < text.size() && !is_space(text[i])) ++i;
    std::string_view word = text.substr(begin, i - begin);
    while (!word.empty() && std::string_view(",.;:!?\")'(").find(word.back()) != std::string_view::npos)
      word.remove_suffix(1);
    words += word.size() >= 2 && std::all_of(word.begin(), word.end(), is_alpha);
  }
  return words;
}

// The last kMaxContext bytes, from the start of a word on.
std::string tail(std::string_view text) {
  if (text.size() <= kMaxContext) return std::string(text);
  text.remove_prefix(text.size() - kMaxContext);
  while (!text.empty() && !is_space(text.front())) text.remove_prefix(1);
  return std::string(text);
}

// At most kMaxAnswer bytes: whole lines where the first one fits.
std::string head(std::string_view text) {
  if (text.size() > kMaxAnswer) {
    const size_t line = text.rfind('\n', kMaxAnswer);
    text = line != std::string_view::npos && line >= kMinAnswer ? text.substr(0, line) : cut_text(text, kMaxAnswer);
  }
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return std::string(text);
}

bool starts_with_any(std::string_view s, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* w) { return s.starts_with(w); });
}

// `name(`, `name = `, `name <- `, or a keyword of Python and R.
bool begins_statement(std::string_view line) {
  line = trim(line);
  if (starts_with_any(line, {"import ", "from ", "def ", "class ", "for ", "if (", "if(", "return ", "with ", "print"}))
    return count_words(line) < 7;
  size_t i = 0;
  if (line.empty() || !(is_alpha(line[0]) || line[0] == '_' || line[0] == '.')) return false;
  while (i < line.size() && (is_name(line[i]) || line[i] == '$')) ++i;
  if (i < line.size() && line[i] == '(') return count_words(line) < 7;
  if (i < line.size() && line[i] == '[') i = std::min(line.find(']', i), line.size() - 1) + 1;
  while (i < line.size() && (line[i] == ' ' || line[i] == ',' || is_name(line[i]))) {
    if (count_words(line.substr(0, i)) > 4) return false;  // a sentence
    ++i;
  }
  return line.substr(i).starts_with("<-") || (line.substr(i).starts_with("=") && !line.substr(i).starts_with("=="));
}

bool is_comment(std::string_view line) {
  line = trim(line);
  return line.starts_with("# ") || line.starts_with("## ") || line.starts_with("//");
}

// A block of lines of R or Python: begins like a statement (comments aside) and holds no sentence.
bool is_code(const Lines& block) {
  bool begun = false;
  for (std::string_view line : block) {
    if (is_comment(line) || is_blank(line)) continue;
    if (!begun && !begins_statement(line)) return false;
    begun = true;
    if (count_words(line) >= 7 && line.find_first_of("\"'") == std::string_view::npos) return false;
    if (trim(line).starts_with("\\") || trim(line).starts_with("|")) return false;
  }
  return begun;
}

bool is_prose(const Lines& block) {
  const std::string_view text = slice(block.front(), block.back());
  const int words = count_words(text);
  const auto blanks = std::count_if(text.begin(), text.end(), is_space);
  return text.size() >= kMinContext && words >= 8 && words * 2 > blanks && !is_comment(text) && !is_code(block) &&
         (is_alnum(text[0]) || text[0] == '*' || text[0] == '"' || text[0] == '(' || text[0] == '-');
}

// ---- code: a paragraph, then a block of code -----------------------------------------------------------------------

void find_code(const Document& document, std::vector<ChoiceCandidate>& found) {
  std::vector<Lines> blocks(1);
  for (std::string_view line : split_lines(document.text)) {
    if (!is_blank(line)) {
      blocks.back().push_back(line);
    } else if (!blocks.back().empty()) {
      blocks.emplace_back();
    }
  }
  if (blocks.back().empty()) blocks.pop_back();
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {
    Lines code = blocks[i + 1];
    const bool fenced = code.front().starts_with("```") && code.size() > 1;
    if (fenced) {
      code.erase(code.begin());
      if (code.back().starts_with("```")) code.pop_back();
    }
    if (code.empty() || !is_prose(blocks[i]) || !is_code(code)) continue;
    const std::string answer = head(slice(code.front(), code.back()));
    if (answer.size() < kMinAnswer) continue;
    const std::string context = tail(slice(blocks[i].front(), blocks[i].back())) + (fenced ? "\n\n```\n" : "\n\n");
    found.push_back({1, fenced ? "fenced" : "plain", document.source, context, answer});
  }
}

// ---- formula: text, then LaTeX -------------------------------------------------------------------------------------

bool is_formula(std::string_view s) {
  return s.size() >= kMinFormula && s.find_first_of("\\^_") != std::string_view::npos &&
         s.find("\n\n") == std::string_view::npos && s.find('"') == std::string_view::npos &&
         s.find("\\Sexpr") == std::string_view::npos && count_words(s) < 6;
}

void add_formula(const Document& document, const char* form, size_t begin, std::string_view formula,
                 std::vector<ChoiceCandidate>& found) {
  const std::string context = tail(std::string_view(document.text).substr(0, begin));
  if (context.size() < kMinContext || count_words(context) < 8 || !is_formula(formula)) return;
  found.push_back({2, form, document.source, context, std::string(cut_text(formula, kMaxAnswer))});
}

void find_displayed(const Document& document, std::vector<ChoiceCandidate>& found) {
  const std::string_view text = document.text;
  for (size_t at = text.find("\\begin{"); at != std::string_view::npos; at = text.find("\\begin{", at + 1)) {
    const size_t close = text.find('}', at);
    if (close == std::string_view::npos) break;
    const std::string_view name = text.substr(at + 7, close - at - 7);
    if (!starts_with_any(name, {"equation", "align", "eqnarray", "displaymath", "gather", "multline"})) continue;
    const size_t end = text.find("\\end{", close);
    if (end == std::string_view::npos) break;
    size_t begin = close + 1;
    if (begin < end && text[begin] == '\n') ++begin;
    std::string_view formula = text.substr(begin, end - begin);
    while (!formula.empty() && is_space(formula.back())) formula.remove_suffix(1);
    add_formula(document, "displayed", begin, formula, found);
  }
}

// $...$ within a paragraph, and $$...$$. R's `data$column` is no formula: the first dollar stands behind a blank.
void find_dollars(const Document& document, std::vector<ChoiceCandidate>& found) {
  const std::string_view text = document.text;
  for (size_t at = text.find('$'); at != std::string_view::npos; at = text.find('$', at)) {
    const bool displayed = text.substr(at).starts_with("$$");
    const std::string_view mark = displayed ? "$$" : "$";
    const size_t begin = at + mark.size(), end = text.find(mark, begin);
    if (end == std::string_view::npos) break;
    const std::string_view formula = text.substr(begin, end - begin);
    const bool opens = at == 0 || is_space(text[at - 1]) || text[at - 1] == '(' || text[at - 1] == '-';
    const bool closes = displayed || (end + 1 >= text.size() || !is_alnum(text[end + 1]));
    const bool tight = displayed || (!formula.empty() && !is_space(formula.front()) && !is_space(formula.back()));
    if (!opens || !closes || !tight || formula.find("\n\n") != std::string_view::npos) {
      at = begin;
      continue;
    }
    if (formula.size() <= kMaxAnswer)
      add_formula(document, displayed ? "dollars" : "inline", begin, text.substr(begin, end + mark.size() - begin),
                  found);
    at = end + mark.size();
  }
}

// ---- docstring: what a function does in words, then its body -------------------------------------------------------

void add_docstring(const Document& document, const char* form, std::string_view comment, std::string_view body,
                   std::vector<ChoiceCandidate>& found) {
  const std::string answer = head(body);
  if (count_words(comment) < 5 || answer.size() < kMinAnswer) return;
  // Answers of another depth would be told from the right one by their indentation alone.
  found.push_back({0, fmt::format("{}-{}", form, indent_of(body)), document.source, tail(comment) + "\n", answer});
}

// Python: def ...: """...""" and the lines that are indented as deep.
void find_python(const Document& document, const Lines& lines, std::vector<ChoiceCandidate>& found) {
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!starts_with_any(trim(lines[i]), {"def ", "async def "})) continue;
    size_t open = i + 1;
    while (open < lines.size() && open < i + 12 && trim(lines[open - 1]).ends_with(":") == false) ++open;
    if (open >= lines.size() || !starts_with_any(trim(lines[open]), {"\"\"\"", "r\"\"\""})) continue;
    size_t close = open;
    const bool one_line = lines[open].find("\"\"\"", lines[open].find("\"\"\"") + 3) != std::string_view::npos;
    if (!one_line) {
      ++close;
      while (close < lines.size() && lines[close].find("\"\"\"") == std::string_view::npos) ++close;
    }
    size_t end = close + 1;
    while (end < lines.size() && !is_blank(lines[end]) && indent_of(lines[end]) > indent_of(lines[i])) ++end;
    if (close + 1 < end && end <= lines.size())
      add_docstring(document, "python", slice(lines[i], lines[close]), slice(lines[close + 1], lines[end - 1]), found);
  }
}

// C++, Go, R and Python: a run of comment lines, then code up to a blank line.
void find_comments(const Document& document, const Lines& lines, std::vector<ChoiceCandidate>& found) {
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!is_comment(lines[i])) continue;
    const bool slashes = trim(lines[i]).starts_with("//");
    size_t code = i + 1;
    while (code < lines.size() && is_comment(lines[code])) ++code;
    size_t end = code;
    while (end < lines.size() && !is_blank(lines[end]) && !is_comment(lines[end])) ++end;
    if (code < end && (slashes || begins_statement(lines[code])))
      add_docstring(document, slashes ? "slashes" : "hashes", slice(lines[i], lines[code - 1]),
                    slice(lines[code], lines[end - 1]), found);
    i = end > i ? end - 1 : i;
  }
}

}  // namespace

std::vector<ChoiceCandidate> find_choice_candidates(const Document& document) {
  std::vector<ChoiceCandidate> found;
  const Lines lines = split_lines(document.text);
  if (document.domain == "cross" || document.domain == "code") {
    find_python(document, lines, found);
    find_comments(document, lines, found);
  }
  if (document.domain == "cross") {
    find_code(document, found);
    find_displayed(document, found);
    find_dollars(document, found);
  }
  return found;
}

}  // namespace tessera
