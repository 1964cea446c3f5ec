// What the routers did over an evaluation: who served which text, and was level 1 right. DESIGN section 3.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"
#include "core/route.h"

namespace tessera {

// A component is dead when fewer than 0.1 % of its domain's tokens pick it: the tokens of that domain's text; of all
// text for a domain that is always active, or a flat MoE's only one. Without such text (0 tokens) nothing is said.
inline bool is_dead(int64_t picks, int64_t tokens) {
  return static_cast<double>(picks) < 1e-3 * static_cast<double>(tokens);
}

// A pick is one component chosen for one token in one layer: T tokens make T * L * K picks.
class RouteStatistics {
 public:
  RouteStatistics() = default;
  // `text_domains`: labels of the documents; those that the hierarchy routes are matched by name.
  RouteStatistics(const Hierarchy& hierarchy, std::vector<std::string> text_domains, int64_t num_documents,
                  bool judges_level1 = true);

  // One window's route, whose first token is number `begin` of its document (in text tokens). Throws BugError when the
  // route doesn't fit the hierarchy. A route without components and pi (dense models, trigrams) is ignored.
  void add(const Route& route, int text_domain, int64_t document, int64_t begin);

  bool empty() const { return picks_ == 0 && chunks_ == 0; }
  int num_layers() const { return static_cast<int>(component_picks_LN_.size()); }
  // Picks by domain of the text and owner of the component [text domain][owner].
  const std::vector<std::vector<int64_t>>& owner_picks() const { return owner_picks_; }
  // Picks by layer and component [L][N].
  const std::vector<std::vector<int64_t>>& component_picks() const { return component_picks_LN_; }
  // Entropy of a layer's picks over its components, as a share of ln N: 1 when all are used alike.
  double entropy(int layer) const;
  // Summed over layers.
  int num_dead() const;

  // Level 1, on documents whose label it knows; -1 when there are none. A chunk's choice is its most probable domain;
  // chunks whose pi is uniform (no decision yet) don't count. A document's choice has the largest mean log pi over its
  // first 512 tokens.
  double chunk_accuracy() const;
  double document_accuracy() const;
  int64_t num_judged_chunks() const { return chunks_; }
  int64_t num_judged_documents() const;

  // {"text_domains", "owner_domains", "picks": [[n]], "load": [[shares, a row sums to 1]], "components": [L][N] picks,
  //  "domain_components": [text domain][N] picks, "component_owners": [N], "entropy": [L], "dead_components": n,
  //  "chunk_accuracy": x or null, "document_accuracy": x or null}
  Json to_json() const;

 private:
  std::vector<std::string> text_domains_, owner_domains_, routed_names_;
  std::vector<int> owners_N_;         // index into owner_domains_
  std::vector<int> labels_;           // by text domain: index into routed_names_, -1: unknown
  std::vector<int> texts_of_owner_;   // by owner: index into text_domains_; kAllTexts, kNoText
  std::vector<int64_t> text_tokens_;  // by text domain: tokens with components
  std::vector<std::vector<int64_t>> owner_picks_, component_picks_LN_;
  std::vector<std::vector<int64_t>> domain_picks_;  // [text domain][L * N]
  std::vector<std::vector<double>> log_pi_;  // by document: sum over its first tokens [M]; empty: no decision yet
  std::vector<int> document_labels_;
  int64_t picks_ = 0, chunks_ = 0, right_chunks_ = 0;
};

}  // namespace tessera
