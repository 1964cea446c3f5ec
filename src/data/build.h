// `data build`: raw documents -> curated, tokenised data set (see shards.h for what the folder holds).
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace tessera {

struct BuildOptions {
  std::vector<std::filesystem::path> inputs;  // .jsonl, .jsonl.zst, folders of them
  std::filesystem::path out;
  std::filesystem::path tokenizer;
  std::string domain = "text";                      // of documents that name none
  std::vector<std::filesystem::path> against = {};  // more texts that training documents must not overlap
  bool skip_bad = false;                            // leave broken lines out and count them
  int num_threads = 0;                              // 0: all CPUs; the result is the same
};

// Builds beside (OUT.tmp) and renames, so that OUT is whole or absent; an OUT built from the same inputs, options and
// tokenizer is reused. Returns report.json with "reused". Throws Error{kData} for a broken document and for a domain
// with fewer than two training documents; Error{kFile} when OUT exists and is no data set.
Json build_data_set(const BuildOptions& options);

// What `data stats` prints: the set opened with its hashes verified, lengths counted from the shards and the evaluation
// files, bytes by decoding. {"data_hash", "vocab_size", "domains": [...], "sources": [...]}
Json data_set_stats(const std::filesystem::path& folder);

}  // namespace tessera
