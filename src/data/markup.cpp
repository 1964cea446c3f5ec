// strip_markup of clean.h: what HTML and reStructuredText leave in extracted text.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "data/ascii.h"
#include "data/clean.h"

namespace tessera {
namespace {

bool is_name_char(char c) { return is_alnum(c) || c == '-' || c == '_' || c == ':'; }

constexpr std::array<std::string_view, 58> kTags = {
    "a",     "abbr", "article", "b",       "blockquote", "body", "br",     "caption", "center", "cite",
    "code",  "dd",   "del",     "div",     "dl",         "dt",   "em",     "font",    "footer", "form",
    "h1",    "h2",   "h3",      "h4",      "h5",         "h6",   "head",   "header",  "hr",     "html",
    "i",     "img",  "input",   "kbd",     "li",         "link", "main",   "meta",    "nav",    "ol",
    "p",     "pre",  "samp",    "section", "small",      "span", "strong", "sub",     "sup",    "table",
    "tbody", "td",   "th",      "thead",   "title",      "tr",   "tt",     "ul"};

// The length of the tag or comment at text[0] == '<', 0 if it is none: "a < b and c > d" must survive, so what follows
// the name must be attributes.
size_t tag_length(std::string_view text, std::string_view& name) {
  if (text.starts_with("<!--")) {
    const size_t end = text.find("-->");
    name = "";
    return end == text.npos ? 0 : end + 3;
  }
  size_t i = text.starts_with("</") ? 2 : 1;
  const size_t begin = i;
  while (i < text.size() && is_alnum(text[i])) ++i;
  name = text.substr(begin, i - begin);
  if (std::find(kTags.begin(), kTags.end(), name) == kTags.end()) return 0;
  for (;;) {
    const size_t space = i;
    while (i < text.size() && is_space(text[i])) ++i;
    if (i < text.size() && text[i] == '>') return i + 1;
    if (text.substr(i).starts_with("/>")) return i + 2;
    if (i == space || i >= text.size() || !is_alpha(text[i])) return 0;
    while (i < text.size() && is_name_char(text[i])) ++i;
    if (i + 1 >= text.size() || text[i] != '=') return 0;
    const char quote = text[++i];
    if (quote == '"' || quote == '\'') {
      i = text.find(quote, i + 1);
      if (i == text.npos) return 0;
      ++i;
    } else {
      while (i < text.size() && is_name_char(text[i])) ++i;
    }
  }
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
            static_cast<char>(0x80 | (c & 0x3F))};
  } else {
    out += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
            static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
}

// Appends the character of the entity at text[0] == '&' and returns its length, 0 if it is none.
size_t append_entity(std::string& out, std::string_view text) {
  const size_t end = text.substr(0, 12).find(';');
  if (end == text.npos || end < 2) return 0;
  std::string_view name = text.substr(1, end - 1);
  if (name[0] == '#') {
    name.remove_prefix(1);
    const bool hex = !name.empty() && (name[0] == 'x' || name[0] == 'X');
    if (hex) name.remove_prefix(1);
    uint32_t c = 0;
    const auto [stop, failed] = std::from_chars(name.data(), name.data() + name.size(), c, hex ? 16 : 10);
    const bool is_character = (c >= 0x20 && c < 0xD800) || (c >= 0xE000 && c <= 0x10FFFF);
    if (name.empty() || failed != std::errc() || stop != name.data() + name.size() || !is_character) return 0;
    append_utf8(out, c);
    return end + 1;
  }
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kEntities = {{{"amp", "&"},
                                                                                               {"lt", "<"},
                                                                                               {"gt", ">"},
                                                                                               {"quot", "\""},
                                                                                               {"apos", "'"},
                                                                                               {"nbsp", " "},
                                                                                               {"mdash", "—"},
                                                                                               {"ndash", "–"},
                                                                                               {"hellip", "…"},
                                                                                               {"lsquo", "‘"},
                                                                                               {"rsquo", "’"},
                                                                                               {"ldquo", "“"},
                                                                                               {"rdquo", "”"},
                                                                                               {"copy", "©"},
                                                                                               {"times", "×"},
                                                                                               {"deg", "°"}}};
  for (const auto& [entity, character] : kEntities) {
    if (name == entity) {
      out += character;
      return end + 1;
    }
  }
  return 0;
}

bool stands_alone(std::string_view name) {
  return name == "br" || name == "hr" || name == "img" || name == "input" || name == "link" || name == "meta";
}

std::string strip_html(std::string_view text) {
  const std::string_view whole = text;
  // Manuals write <a>, <i> or <body> for "put a name here": a bare tag is one only if the document closes it somewhere.
  std::array<signed char, kTags.size()> closed;
  closed.fill(-1);
  const auto is_closed = [&](std::string_view name) {
    signed char& known = closed[static_cast<size_t>(std::find(kTags.begin(), kTags.end(), name) - kTags.begin())];
    if (known < 0) known = whole.find("</" + std::string(name) + ">") != whole.npos;
    return known == 1;
  };
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t plain = std::min(text.find_first_of("<&"), text.size());
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    std::string_view name;
    size_t length = text[0] == '<' ? tag_length(text, name) : append_entity(out, text);
    const bool is_bare = !name.empty() && length == name.size() + 2;
    if (is_bare && !stands_alone(name) && !is_closed(name)) length = 0;
    if (length > 0 && (name == "br" || name == "p" || name == "tr" || name == "hr")) out += '\n';
    if (length == 0) {
      out += text[0];
      length = 1;
    }
    text.remove_prefix(length);
  }
  return out;
}

// What a role or a link shows: "text <target>" is text, "~a.b.C" is C, "!x" is x.
std::string_view shown(std::string_view content) {
  if (const size_t target = content.rfind(" <"); target != content.npos && content.ends_with('>'))
    return content.substr(0, target);
  if (content.starts_with('!')) return content.substr(1);
  if (content.starts_with('~')) return content.substr(content.find_last_of("~.") + 1);
  return content;
}

// :role:`content`, :domain:role:`content`: the length up to the first backtick, 0 if there is no role at text[0] ==
// ':'.
size_t role_length(std::string_view text) {
  size_t i = 1;
  while (i < text.size() && is_name_char(text[i])) ++i;
  return i > 2 && i < text.size() && text[i] == '`' && text[i - 1] == ':' && is_alpha(text[1]) ? i : 0;
}

// The content of `text`, which begins with `open` and goes on to the next `close`; "" if there is none, or if it begins
// or ends with a space (``quotes'' of TeX do).
std::string_view enclosed(std::string_view text, std::string_view open, std::string_view close) {
  const size_t end = text.find(close, open.size());
  if (end == text.npos) return "";
  const std::string_view content = text.substr(open.size(), end - open.size());
  return content.starts_with(' ') || content.ends_with(' ') ? "" : content;
}

// Roles, ``literals`` and `links <target>`_ of one line become their content.
void append_inline(std::string& out, std::string_view line) {
  if (line.find('`') == line.npos) {
    out += line;
    return;
  }
  while (!line.empty()) {
    const std::string_view role = line.substr(0, line[0] == ':' ? role_length(line) + 1 : 0);
    std::string_view content;
    size_t length = 0;
    if (role.size() > 1) {
      content = enclosed(line, role, "`");
      length = role.size() + content.size() + 1;
    } else if (line.starts_with("```")) {  // a fence of Markdown
      out += "```";
      line.remove_prefix(3);
      continue;
    } else if (line.starts_with("``")) {
      content = enclosed(line, "``", "``");
      length = content.size() + 4;
    } else if (line[0] == '`') {
      content = enclosed(line, "`", "`_");
      if (content.find('`') != content.npos) content = "";
      length = content.size() + 3;
    }
    if (content.empty()) {
      out += line[0];
      line.remove_prefix(1);
    } else {
      out += line.starts_with("``") ? content : shown(content);
      line.remove_prefix(length);
    }
  }
}

constexpr std::array<std::string_view, 22> kDroppedDirectives = {
    "toctree",       "image",  "include",   "literalinclude", "index",        "raw",        "contents",
    "currentmodule", "module", "highlight", "kernel-doc",     "autosummary",  "automodule", "autoclass",
    "autofunction",  "plot",   "only",      "sectionauthor",  "moduleauthor", "role",       "default-role",
    "meta"};

size_t indent_of(std::string_view line) { return std::min(line.find_first_not_of(" \t"), line.size()); }

// A row of one punctuation character.
bool is_rule(std::string_view line) {
  return line.size() >= 3 && std::string_view("=-~^\"'*+#").find(line[0]) != line.npos &&
         line.find_first_not_of(line[0]) == line.npos;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    lines.push_back(text.substr(0, text.find('\n')));
    text.remove_prefix(std::min(text.size(), lines.back().size() + 1));
  }
  return lines;
}

bool is_field(std::string_view text) {  // ":name: value" below a directive
  if (!text.starts_with(':')) return false;
  const size_t end = text.find(':', 1);
  return end != text.npos && end > 1 && (end + 1 == text.size() || text[end + 1] == ' ');
}

class RstStripper {
 public:
  std::string strip(std::string_view text) {
    out_.reserve(text.size());
    const auto lines = split_lines(text);
    for (size_t i = 0; i < lines.size(); ++i) {
      if (!is_heading_rule(lines, i)) add(lines[i]);
    }
    return std::move(out_);
  }

 private:
  // The rule under a heading (as long as it, a blank line below: a table's rule has rows there), or the one above it.
  static bool is_heading_rule(const std::vector<std::string_view>& lines, size_t i) {
    const auto line = [&](size_t at) { return at < lines.size() ? lines[at] : std::string_view(); };
    if (!is_rule(line(i))) return false;
    const std::string_view above = i > 0 ? line(i - 1) : std::string_view();
    const bool is_under = !above.empty() && !is_rule(above) && line(i).size() >= above.size() &&
                          line(i).size() <= above.size() + 4 && line(i + 1).empty();
    const bool is_over = above.empty() && line(i + 2) == line(i) && line(i + 3).empty();
    return is_under || is_over;
  }

  void add(std::string_view line) {
    const size_t indent = indent_of(line);
    const std::string_view body = line.substr(indent);
    if (skipping_ && (body.empty() || indent > directive_indent_)) return;
    skipping_ = false;
    if (in_options_ && indent > directive_indent_ && is_field(body)) return;
    in_options_ = false;
    if (body.starts_with(".. ") && add_explicit(body.substr(3), indent)) return;
    if (line.ends_with("::") && line.size() > 2 && (is_alnum(line[line.size() - 3]) || line[line.size() - 3] == ')')) {
      line.remove_suffix(1);
    } else if (body == "::") {
      return;
    }
    append_inline(out_, line);
    out_ += '\n';
  }

  // What follows ".. ": true when the line is dealt with.
  bool add_explicit(std::string_view rest, size_t indent) {
    directive_indent_ = indent;
    if (rest.starts_with('_')) return true;   // a label or a link's target
    if (rest.starts_with('[')) return false;  // a footnote
    if (rest.starts_with('|')) {              // a substitution
      skipping_ = true;
      return true;
    }
    const size_t colons = rest.find("::");
    if (colons == rest.npos || std::any_of(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(colons),
                                           [](char c) { return !is_name_char(c); })) {
      skipping_ = true;  // a comment
      return true;
    }
    const std::string_view name = rest.substr(0, colons);
    skipping_ = std::find(kDroppedDirectives.begin(), kDroppedDirectives.end(), name) != kDroppedDirectives.end();
    in_options_ = true;
    std::string_view argument = rest.substr(colons + 2);
    argument.remove_prefix(indent_of(argument));
    const bool is_language = name == "code-block" || name == "code" || name == "sourcecode" || name == "figure";
    if (skipping_ || is_language || argument.empty()) return true;
    out_.append(indent, ' ');
    append_inline(out_, argument);
    out_ += '\n';
    return true;
  }

  std::string out_;
  size_t directive_indent_ = 0;
  bool skipping_ = false;    // inside a directive whose content is no text
  bool in_options_ = false;  // right after a directive
};

}  // namespace

std::string strip_markup(std::string_view text) { return RstStripper().strip(strip_html(text)); }

}  // namespace tessera
