// Tokenised documents on disk: memory-mapped shards, an index and hashes.
//
// A data folder holds index.json, tokenizer.json, report.json, train shards and the held-out documents as text
// (heldout.jsonl.zst, cross.jsonl.zst: evaluation is in bytes, so it starts from text).
// A shard NAME.bin: 64 bytes of header (magic "TSRSHARD", version u32, token width in bytes u32 (2 or 4), tokens u64,
// documents u64, zeros), then the tokens (little endian, no bos), padding to 8 bytes, then documents+1 offsets (u64, in
// tokens), then a domain id (u16) for each document, then a source id (u16) for each. index.json: {"version",
// "domains", "sources", "vocab_size", "bos", "tokenizer_hash", "shards": [{"file", "tokens", "documents", "bytes"
// (UTF-8 of the text), "hash" (XXH3 of the file)}], "hash"}.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"

namespace tessera {

class Tokenizer;

class ShardWriter {
 public:
  // A shard is closed and the next one begun after `shard_tokens`.
  ShardWriter(std::filesystem::path folder, std::vector<std::string> domains, std::vector<std::string> sources,
              int vocab_size, int32_t bos, std::string tokenizer_hash, int64_t shard_tokens = 64'000'000);
  ~ShardWriter();
  // `tokens` must not be empty.
  void add(const std::vector<int32_t>& tokens, int domain, int source, int64_t text_bytes);
  void close();  // writes index.json last: a folder without it is no data set

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class ShardSet {
 public:
  // Checks every size and offset against the files' lengths and, when asked, the hashes. Throws Error{kData} naming the
  // shard, what was expected and what was found.
  explicit ShardSet(const std::filesystem::path& folder, bool verify_hashes = true);
  ~ShardSet();
  const std::vector<std::string>& domains() const;
  const std::vector<std::string>& sources() const;
  int vocab_size() const;
  int32_t bos() const;
  const std::string& hash() const;  // of the whole set: changes when any token does
  // The folder's tokenizer.json. Throws Error{kData} when it is not the one that the shards were made with.
  Tokenizer tokenizer() const;
  int64_t num_documents(int domain) const;
  int64_t num_tokens(int domain) const;
  int64_t document_tokens(int domain, int64_t index) const;
  int document_source(int domain, int64_t index) const;  // index into sources()
  // Copies tokens [begin, begin + count) of the domain's document `index` to `out`. Throws Error{kData} naming the
  // shard for a token outside the vocabulary (possible only when hashes weren't verified).
  void read(int domain, int64_t index, int64_t begin, int64_t count, int32_t* out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera
