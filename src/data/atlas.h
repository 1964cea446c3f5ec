// What each component is for: which tokens and domains it is picked for, where, and what is lost without it.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"
#include "core/scorer.h"
#include "core/tokenizer.h"
#include "data/document.h"

namespace tessera {

struct AtlasOptions {
  int contexts = 5;         // sample contexts a component
  int removal_windows = 3;  // of a component's removal: the windows in which it is picked most, and
  int class_tokens = 20;    // more windows, as long as a class has fewer of its tokens in them, up to
  int most_windows = 10;
  std::function<void(double done, double total)> progress = {};
};

// A component is one (layer, id). For each, over the documents' tokens (a token's class: data/token_class.h):
//   "share" of the tokens that picked it; "class_bits", "domain_bits": mutual information, in bits, between being
//   picked and the token's class, the text's domain; "picked_for": {"classes", "domains"}: [[name, times its mean
//   share], ...], those it is picked for more than on the average and that make up most of that information, two
//   classes and a domain at most; "classes", "domains": share of each that picked it; "contexts": [before, token,
//   after] where it had the largest weights; "dead": picked for fewer than 0.1 % of its domain's tokens (general
//   domains, and those that name no text: of all tokens). "removal": {class: [nats, tokens]}: rise of -log p of the
//   token that follows, mean over the class's tokens that had picked the component, when its share of the output goes
//   to the other chosen ones (K = 1: to none) by a replayed route; in the windows that AtlasOptions says.
//   "removal_nats": the mean over all of them.
// {"classes", "domains", "owners", "layers": L, "tokens", "class_tokens", "components": [{"layer", "id", "owner",
// ...}],
//  "dead": [names]}. Throws Error{kData} for a model without components.
Json build_atlas(Scorer& scorer, const Tokenizer& tokenizer, std::span<const Document> documents,
                 const Hierarchy& hierarchy, const AtlasOptions& options = {});

// `yes` of `all` things of each kind: what a kind tells of the yes, p(kind) KL(yes | kind || yes) in bits. The sum over
// kinds is the mutual information.
std::vector<double> information_by_kind(std::span<const int64_t> yes, std::span<const int64_t> all);

}  // namespace tessera
