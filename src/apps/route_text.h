// Generated text with its route beside it, for a terminal and for the report page.
#pragma once
#include <string>

#include "base/json.h"
#include "core/tokenizer.h"
#include "engine/generate.h"

namespace tessera {

// Lines of text on the left; on the right the domain that level 1 favours there and the components most used in the
// line. Tokenizer and architecture outlive it.
class RouteLines {
 public:
  RouteLines(const Tokenizer& tokenizer, const Architecture& architecture, bool colour)
      : tokenizer_(tokenizer), architecture_(architecture), colour_(colour) {}
  // The lines that `generated` has completed since the last call, `route` being its route so far; `last`: the rest too.
  std::string take(const engine::Generated& generated, const Route& route, bool last);

 private:
  std::string end_line(const Route& route, int end);

  const Tokenizer& tokenizer_;
  const Architecture& architecture_;
  bool colour_;
  std::string line_, bytes_;       // not printed yet; not a character yet
  int next_ = 0, line_begin_ = 0;  // tokens
};

// All of them.
std::string text_with_route(const engine::Generated& generated, const Tokenizer& tokenizer,
                            const Architecture& architecture, bool colour);

// The report page's form of a sample (report_page.h).
Json sample_json(const engine::Generated& generated, const Tokenizer& tokenizer, const std::string& domain);

}  // namespace tessera
