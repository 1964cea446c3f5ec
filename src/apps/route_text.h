// Generated text with its route beside it, for a terminal and for the report page.
#pragma once
#include <string>

#include "base/json.h"
#include "core/tokenizer.h"
#include "engine/generate.h"

namespace tessera {

// Lines of text on the left; on the right the domain that level 1 favours there and the components most used in the
// line.
std::string text_with_route(const engine::Generated& generated, const Tokenizer& tokenizer,
                            const Architecture& architecture, bool colour);

// The report page's form of a sample (report_page.h).
Json sample_json(const engine::Generated& generated, const Tokenizer& tokenizer, const std::string& domain);

}  // namespace tessera
