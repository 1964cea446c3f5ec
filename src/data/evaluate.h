// Bits per byte by domain of labelled documents, with any Scorer. DESIGN section 4: per byte of UTF-8 and never per
// token, because tokenizers differ.
//
//   document -> tokens t1..tn -> windows of context_length tokens that don't overlap, each [bos, t_i, t_i+1, ...]
//   bits per byte = sum of -log2 p(t_i | the window before it) / UTF-8 bytes
//
// The loss of a window's first text token is included; there is no end token.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"
#include "core/scorer.h"
#include "core/tokenizer.h"
#include "data/document.h"
#include "data/route_statistics.h"

namespace tessera {

struct EvaluateOptions {
  int windows_a_call = 16;    // windows of similar length that scorer.score is given at once
  Hierarchy hierarchy = {};   // the model's: label ids for an oracle router, owners of components. Empty for a
                              // scorer that fills no routes
  bool judges_level1 = true;  // false: some domains are barred, so that its choices say little
  std::function<void(double done, double total)> progress = {};  // in tokens, after each call; may be empty
};

// What one document (or what was taken of it) cost: enough for a bootstrap over documents.
struct DocumentSum {
  int domain = 0;  // index into Evaluation::domains
  int64_t bytes = 0, tokens = 0;
  double nats = 0;  // sum of -log p
};

struct DomainSum {
  std::string name;  // the documents' label; "unlabelled" when they have none
  int64_t documents = 0, bytes = 0, tokens = 0;
  double nats = 0;
};

struct Evaluation {
  std::vector<DomainSum> domains;  // the model's routed domains first, in its order, then as met; only those with text
  std::vector<DocumentSum> documents;  // in the order given, empty documents left out
  RouteStatistics route;               // empty for a scorer that fills no routes

  double bpb(int domain) const;  // bits per byte
  double bpb_all() const;        // all bits / all bytes
  double bpb_mean() const;       // mean over the domains
  int64_t bytes() const;
  int64_t tokens() const;
};

// Throws Error{kData} when there is nothing to evaluate, or the tokenizer has no bos or more tokens than the scorer;
// Error{kDiverged} when the scorer gives a log-probability that is no number.
Evaluation evaluate(Scorer& scorer, const Tokenizer& tokenizer, std::span<const Document> documents,
                    const EvaluateOptions& options = {});

// {"bpb": {domain: x}, "bpb_all": x, "bpb_mean": x, "documents": n, "bytes": n, "tokens": n,
//  "by_domain": {domain: {"documents", "bytes", "tokens"}}, "route_statistics": {...} (only when there are routes)}
Json to_json(const Evaluation& evaluation);

}  // namespace tessera
