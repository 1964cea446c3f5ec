// Curation: which documents are learnt from, in what form, and a table of what was dropped and why.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/document.h"

namespace tessera {

// One row of the table: what a step dropped for one reason, or took out of documents that it kept.
struct Removal {
  std::string step, reason;
  int64_t documents = 0, bytes = 0;
  std::vector<std::string> samples = {};  // "source: beginning of the text", a few, chosen by hash
};

class CurationReport {
 public:
  void add(const std::string& step, const std::string& reason, int64_t bytes);
  void add(const std::string& step, const std::string& reason, const Document& dropped);
  const std::vector<Removal>& removals() const { return removals_; }
  // [{"step", "reason", "documents", "bytes", "samples"}] in the order of the steps.
  Json json() const;

 private:
  size_t row(const std::string& step, const std::string& reason);
  std::vector<Removal> removals_;             // in order of first use
  std::vector<std::vector<uint64_t>> picks_;  // hash of each row's samples, ascending
};

// Normalises every text, strips markup and licences, and drops what breaks a rule of quality. Any number of threads
// (0: all CPUs) gives the same result.
void clean_documents(std::vector<Document>& documents, CurationReport& report, int num_threads = 0);

// Drops exact duplicates, near-duplicates (the first is kept, evaluation documents before training ones) and training
// documents that overlap an evaluation document: the held-out and cross-domain ones among `documents`, and `against`.
void deduplicate_documents(std::vector<Document>& documents, const std::vector<Document>& against,
                           CurationReport& report, int num_threads = 0);

// 13 words that stand in an evaluation text too make an overlap; a document is dropped when a tenth of its words are in
// such runs, or when one run is this long.
constexpr int kOverlapGram = 13;
constexpr double kMaxOverlapShare = 0.1;
constexpr int kMaxOverlapRun = 50;

}  // namespace tessera
