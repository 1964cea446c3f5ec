// What each component is for: which tokens and domains it is picked for, where, and what is lost without it.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "base/json.h"
#include "core/hierarchy.h"
#include "core/scorer.h"
#include "core/tokenizer.h"
#include "data/document.h"

namespace tessera {

struct AtlasOptions {
  int contexts = 5;         // sample contexts a component
  int removal_windows = 3;  // of a component's removal: the windows in which it is picked most
  std::function<void(double done, double total)> progress = {};
};

// A component is one (layer, id). For each, over the documents' tokens (a token's class: data/token_class.h):
//   "share" of the tokens that picked it; "class_bits", "domain_bits": mutual information, in bits, between being
//   picked and the token's class, the text's domain; "classes", "domains": share of each that picked it; "contexts":
//   [before, token, after] where it had the largest weights; "dead": picked for fewer than 0.1 % of its domain's tokens
//   (general domains, and those that name no text: of all tokens). "removal": {class: [nats, tokens]}: rise of -log p
//   of the token that follows, mean over the class's tokens that had picked the component, when its share of the output
//   goes to the other chosen ones (K = 1: to none) by a replayed route; in its busiest windows. "removal_nats": the
//   mean over all of them.
// {"classes", "domains", "owners", "layers": L, "tokens", "class_tokens", "components": [{"layer", "id", "owner",
// ...}],
//  "dead": [names]}. Throws Error{kData} for a model without components.
Json build_atlas(Scorer& scorer, const Tokenizer& tokenizer, std::span<const Document> documents,
                 const Hierarchy& hierarchy, const AtlasOptions& options = {});

// Mutual information in bits between a yes and a kind: `yes` of `all` things of each kind.
double mutual_information(std::span<const int64_t> yes, std::span<const int64_t> all);

}  // namespace tessera
