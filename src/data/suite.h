// What ./tessera compare and `eval --suite cross` measure: bits per byte by domain on held-out sources, on documents
// that mix domains and on documents spliced from held-out ones, and cross-domain multiple choice. The same text for
// every model.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/evaluate.h"
#include "data/multiple_choice.h"

namespace tessera {

struct Suite {
  std::vector<Document> heldout, cross;  // samples by source (data/sample.h)
  std::vector<ChoiceItem> items;         // of all held-out and cross-domain documents
  std::string hash;                      // of all of these
  std::vector<Document> spliced;  // 2-4 pieces of 32-400 tokens (3 bytes each) of held-out documents of any domain
  std::string spliced_hash;       // apart: results of before there were any still hold
};
// `folder`: a data folder. Throws Error{kFile} when its evaluation files are missing, Error{kData} when they are empty.
Suite load_suite(const std::filesystem::path& folder);

struct SuiteResults {
  Evaluation heldout, cross, spliced;
  ChoiceResults choices;
};
SuiteResults run_suite(Scorer& scorer, const Tokenizer& tokenizer, const Suite& suite, const Hierarchy& hierarchy,
                       const std::function<void(double done, double total)>& progress = {});

// Bits per byte and details on spliced text alone: {"spliced_bpb": x, "spliced_hash"}, {"domains", ... "bits"}.
std::pair<Json, Json> spliced_json(const Evaluation& spliced, const Suite& suite);
// {"bpb": {domain: x}, "cross_bpb": x, "spliced_bpb": x, "spliced_hash", "cross_accuracy": {task: x, "mean": x},
// "chance": 0.25, "suite_hash", "items":
//  {task: n}, "route_statistics" (when there are routes)}; without items no accuracies
Json to_json(const SuiteResults& results, const Suite& suite);
// What a bootstrap needs: {"heldout": {"domains", "sources", "domain": [index], "source": [index], "bytes": [n],
// "bits": [x]}, "cross" and "spliced": the same, "choices": {task: "0110..." one digit an item}}. One entry a document.
Json details_json(const SuiteResults& results, const Suite& suite);

}  // namespace tessera
