// The raw content of a tokenizer.json. Its two large parts, vocabulary and merges, are streamed into flat lists: a
// hundred thousand entries as JSON values would take longer to build than everything else a program does at start.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

struct TokenizerJson {
  std::vector<std::pair<std::string, int64_t>> vocab;       // model.vocab, as written
  std::vector<std::pair<std::string, std::string>> merges;  // model.merges, from either of its two forms
  bool has_vocab = false, has_merges = false;               // false: absent or of another type, then in `rest`
  nlohmann::json rest;                                      // everything else
};

// Throws Error{kData} that begins with `what`: no JSON, a key twice in one object, nested too deeply, an entry of the
// vocabulary or of the merges of the wrong type.
TokenizerJson parse_tokenizer_json(std::string_view json, const std::string& what);

}  // namespace tessera
