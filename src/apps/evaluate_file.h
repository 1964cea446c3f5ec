// What `eval` does in both programs, whatever scores the text.
#pragma once
#include <string>

#include "core/hierarchy.h"
#include "core/scorer.h"
#include "core/tokenizer.h"

namespace tessera {

// Bits per byte by domain of the labelled documents in `data` (at most max_bytes of each domain, its sources alike; 0:
// everything), as a table on standard output, and with `json` as its last line one JSON object. `all_domains`: none is
// barred, so that level 1's choices can be judged.
void evaluate_file(Scorer& scorer, const Tokenizer& tokenizer, const Hierarchy& hierarchy, const std::string& data,
                   int64_t max_bytes, bool all_domains, bool json);

}  // namespace tessera
