// `eval --suite routing`: is level 1 right on documents of sources never trained on, are its probabilities true, and
// what do its decisions cost in nats. DESIGN section 3.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/tokenizer.h"
#include "data/document.h"
#include "train/model.h"

namespace tessera {

struct RoutingSuiteOptions {
  std::vector<Document> documents;        // labelled, of held-out sources
  std::vector<Document> mixed;            // that mix domains; may be empty
  std::optional<std::string> train_data;  // a data folder: the linear baseline learns from it
  std::optional<std::string> teacher;     // a teacher that `distil` saved
  int regret_texts = 64;                  // of each kind; 0: all that there are
  uint64_t seed = 1;                      // of splices and of the random router
  std::function<void(const std::string&, double, double)> progress = {};
};

// What was decided, by document: also what a person looks through to judge the labels.
struct DocumentDecision {
  int label = -1, choice = -1;  // routed domains; choice: the largest mean log pi over the first 512 tokens, -1: none
  size_t document = 0;
};

// {"accuracy_documents", "accuracy_chunks", "macro_f1", "ece", "linear_baseline_accuracy", "teacher_accuracy",
//  "regret_nats": {"plain", "spliced", "mixed"}, "dead_components", "worst_source": {"source", "accuracy",
//  "documents"}, "confusion": [label][choice], "domains", "by_source", "agreement", "regret": {kind: {"oracle",
//  "best_single", "uniform", "random"}}}.
// regret_nats is the loss a token beyond that of the best single domain of each text (a negative one: better than any
// single domain). null: what there is no data for. Throws Error{kData} when no document has a domain of the model.
Json routing_suite(const Model& model, const Tokenizer& tokenizer, const RoutingSuiteOptions& options,
                   std::vector<DocumentDecision>* decisions = nullptr);

}  // namespace tessera
