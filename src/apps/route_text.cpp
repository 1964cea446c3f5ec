#include "apps/route_text.h"

#include <algorithm>
#include <map>

#include "base/log.h"
#include "core/unicode.h"

namespace tessera {
namespace {

constexpr size_t kColumns = 64;

// Takes the characters that are whole from the front of `bytes`; what can't become one is U+FFFD, byte by byte. A token
// may end within a character, which then waits for the next, unless `last`.
std::string take_characters(std::string& bytes, bool last) {
  std::string text;
  while (!bytes.empty()) {
    const size_t whole = valid_utf8_prefix(bytes);
    text += bytes.substr(0, whole);
    bytes.erase(0, whole);
    const bool waits = !bytes.empty() && bytes.size() < 4 && (static_cast<unsigned char>(bytes[0]) & 0xC0) == 0xC0;
    if (bytes.empty() || (waits && !last)) break;
    text += "\uFFFD";
    bytes.erase(0, 1);
  }
  return text;
}

size_t display_width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string beside(const Route& route, const Hierarchy& h, int begin, int end) {
  end = std::min(end, route.num_tokens);
  if (route.num_layers == 0 || begin >= end) return "";
  const std::vector<int> routed = routed_domains(h);
  const size_t m = routed.size(), chunk = chunk_at(route, end - 1);
  const float* pi = &route.pi_CM[chunk * m];
  const size_t best = static_cast<size_t>(std::max_element(pi, pi + m) - pi);
  std::string text = m < 2           ? ""
                     : pi[best] == 0 ? "(all barred)"
                     : is_undecided({pi, m})
                         ? "(no decision yet)"
                         : fmt::format("{} {:.2f}", h.domains[static_cast<size_t>(routed[best])].name, pi[best]);
  std::map<int32_t, int> count;
  const size_t per_token = static_cast<size_t>(route.num_layers * route.num_active);
  for (size_t i = static_cast<size_t>(begin) * per_token; i < static_cast<size_t>(end) * per_token; ++i)
    ++count[route.components_TLK[i]];
  std::vector<std::pair<int, int32_t>> order;
  for (const auto& [id, n] : count) order.push_back({-n, id});
  std::sort(order.begin(), order.end());
  text = fmt::format("{:<18}", text);
  for (size_t i = 0; i < std::min<size_t>(3, order.size()); ++i) text += " " + component_name(h, order[i].second);
  return text;
}

}  // namespace

std::string RouteLines::end_line(const Route& route, int end) {
  const std::string beside_it = beside(route, architecture_.hierarchy, line_begin_, end);
  const size_t width = display_width(line_);
  std::string out = line_ + std::string(width < kColumns ? kColumns - width : 0, ' ') +
                    (colour_ ? "  \033[2m| " : "  | ") + beside_it + (colour_ ? "\033[0m\n" : "\n");
  line_.clear();
  line_begin_ = end;
  return out;
}

std::string RouteLines::take(const engine::Generated& g, const Route& route, bool last) {
  const int num_tokens = static_cast<int>(g.tokens.size());
  std::string out;
  // What the last token is routed to is known when it is run.
  for (const int end = last ? num_tokens : std::min(num_tokens, route.num_tokens); next_ < end;) {
    const int i = next_++;
    if (g.tokens[static_cast<size_t>(i)] == tokenizer_.bos()) continue;
    bytes_ += tokenizer_.token_bytes(g.tokens[static_cast<size_t>(i)]);
    std::string piece = take_characters(bytes_, last && next_ == end);
    if (i == g.num_prompt_tokens) piece.insert(0, "▸");  // where the model goes on
    for (char c : piece) {
      if (c == '\n') {
        out += end_line(route, next_);
      } else {
        line_ += c == '\t' ? ' ' : c;
      }
    }
    if (display_width(line_) >= kColumns - 8) out += end_line(route, next_);
  }
  if (last && !line_.empty()) out += end_line(route, num_tokens);
  return out;
}

std::string text_with_route(const engine::Generated& g, const Tokenizer& tokenizer, const Architecture& architecture,
                            bool colour) {
  return RouteLines(tokenizer, architecture, colour).take(g, g.route, true);
}

Json sample_json(const engine::Generated& g, const Tokenizer& tokenizer, const std::string& domain) {
  Json tokens = Json::array();
  for (int32_t token : g.tokens)
    tokens.push_back(token == tokenizer.bos() ? "" : std::string(tokenizer.token_bytes(token)));
  return {{"domain", domain}, {"prompt_tokens", g.num_prompt_tokens}, {"tokens", tokens}, {"route", to_json(g.route)}};
}

}  // namespace tessera
