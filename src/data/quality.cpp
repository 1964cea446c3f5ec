#include "data/quality.h"

#include <xxhash.h>

#include <algorithm>
#include <cctype>

#include "data/words.h"

namespace tessera {
namespace {

struct Limits {
  size_t min_bytes;
  double min_letters;         // letters among the characters that are no space
  double max_digits;          // digits among them
  double max_repeated_lines;  // bytes in lines that stand in the document before
  double max_repeated_grams;  // words in runs of 10 that stand in it before
  size_t max_line;            // longest line
};

// Code repeats itself and has short lines; mathematics is made of digits and signs.
Limits limits_of(TextKind kind) {
  constexpr size_t kAny = SIZE_MAX;
  switch (kind) {
    case TextKind::kCode:
      return {100, 0.40, 0.35, 0.60, 0.70, 2000};
    case TextKind::kMathematics:
      return {50, 0.20, 0.60, 0.50, 0.75, kAny};
    case TextKind::kScience:
      return {100, 0.45, 0.25, 0.40, 0.50, kAny};
    case TextKind::kProse:
      break;
  }
  return {100, 0.65, 0.12, 0.20, 0.20, kAny};
}

struct Measures {
  size_t visible = 0, letters = 0, digits = 0;
  size_t longest_line = 0, longest_run = 0;  // run: of characters without a space
  size_t blob_bytes = 0;                     // in runs of 120 and more made of the base64 or hex alphabet
};

bool is_blob_char(unsigned char c) {
  return std::isalnum(c) || c == '+' || c == '/' || c == '=' || c == '_' || c == '-';
}

void measure_characters(std::string_view text, Measures& m) {
  constexpr size_t kBlob = 120;
  size_t line = 0, run = 0, blob = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_space = byte <= ' ';
    run = is_space ? 0 : run + 1;
    line = byte == '\n' ? 0 : line + 1;
    m.longest_run = std::max(m.longest_run, run);
    m.longest_line = std::max(m.longest_line, line);
    blob = is_blob_char(byte) ? blob + 1 : 0;
    if (blob == kBlob) m.blob_bytes += kBlob;
    if (blob > kBlob) ++m.blob_bytes;
    if (is_space || (byte & 0xC0) == 0x80) continue;  // continuation bytes belong to the character counted
    ++m.visible;
    m.letters += std::isalpha(byte) != 0 || byte >= 0x80;
    m.digits += std::isdigit(byte) != 0;
  }
}

// Only lines that say something: "}" and "end" stand in every file many times.
double repeated_line_share(std::string_view text) {
  constexpr size_t kMinLine = 12;
  HashSet seen;
  size_t total = 0, repeated = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    total += line.size();
    if (line.size() >= kMinLine && !seen.insert(XXH3_64bits(line.data(), line.size()))) repeated += line.size();
  }
  return total ? static_cast<double>(repeated) / static_cast<double>(total) : 0.0;
}

double repeated_gram_share(std::string_view text) {
  constexpr int kGram = 10;
  const auto words = word_hashes(text);
  if (words.size() < 2 * kGram) return 0;
  const auto grams = gram_hashes(words, kGram);
  HashSet seen(grams.size());
  size_t covered_to = 0, covered = 0;  // words before covered_to are counted already
  for (size_t i = 0; i < grams.size(); ++i) {
    if (seen.insert(grams[i])) continue;
    covered += i + kGram - std::max(covered_to, i);
    covered_to = i + kGram;
  }
  return static_cast<double>(covered) / static_cast<double>(words.size());
}

}  // namespace

const char* quality_fault(std::string_view text, TextKind kind) {
  const Limits limits = limits_of(kind);
  if (text.size() < limits.min_bytes) return "too short";
  Measures m;
  measure_characters(text, m);
  const auto share = [](size_t part, size_t whole) {
    return static_cast<double>(part) / static_cast<double>(std::max<size_t>(whole, 1));
  };
  if (share(m.blob_bytes, text.size()) > 0.1) return "encoded data (base64 or hexadecimal)";
  if (m.longest_line > limits.max_line || m.longest_run > 2000) return "very long lines (minified, or a data table)";
  if (share(m.digits, m.visible) > limits.max_digits) return "mostly digits (a data table)";
  if (share(m.letters, m.visible) < limits.min_letters) return "too few letters";
  if (repeated_line_share(text) > limits.max_repeated_lines) return "repeated lines";
  if (repeated_gram_share(text) > limits.max_repeated_grams) return "repeated passages";
  return nullptr;
}

}  // namespace tessera
