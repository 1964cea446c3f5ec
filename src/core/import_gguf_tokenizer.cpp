// A GGUF file's tokenizer.ggml.* keys as a tokenizer.json of the variant that they name.
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "core/gguf.h"
#include "core/import_source.h"
#include "core/pre_tokenizer.h"
#include "core/unicode.h"

namespace tessera {
namespace {

// llama.cpp's names of pre-tokenizers (llama-vocab.cpp) that are one of ours.
const std::map<std::string_view, PreTokenizer> kPreTokenizers{
    {"smollm", PreTokenizer::kSmolLm2},  {"starcoder", PreTokenizer::kSmolLm2}, {"refact", PreTokenizer::kSmolLm2},
    {"gpt-2", PreTokenizer::kGpt2},      {"llama-bpe", PreTokenizer::kLlama3},  {"llama3", PreTokenizer::kLlama3},
    {"llama-v3", PreTokenizer::kLlama3}, {"qwen2", PreTokenizer::kQwen},
};

enum TokenType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

}  // namespace

std::string tokenizer_json_of_gguf(const GgufFile& file) {
  const auto fail = [&](const std::string& message, const std::string& hint = "") {
    throw Error(ErrorCode::kData, file.path().string() + ": " + message, hint);
  };
  const std::string_view name = file.text("tokenizer.ggml.pre").value_or("");
  const auto variant = kPreTokenizers.find(name);
  if (variant == kPreTokenizers.end())
    fail("key 'tokenizer.ggml.pre': \"" + std::string(name) + "\" isn't read",
         "these are: " + supported_pre_tokenizers());
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  const auto types = file.integers("tokenizer.ggml.token_type");
  const auto merges = file.texts("tokenizer.ggml.merges");
  if (!tokens) fail("key 'tokenizer.ggml.tokens' is missing");
  if (!merges) fail("key 'tokenizer.ggml.merges' is missing");
  if (types && types->size() != tokens->size())
    fail(fmt::format("key 'tokenizer.ggml.token_type': expected {} types, found {}", tokens->size(), types->size()));

  // Objects of nlohmann's sorted kind: looking up one of 100,000 keys in an ordered one would take as many steps.
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array(),
                 merge_list = nlohmann::json::array();
  for (size_t id = 0; id < tokens->size(); ++id) {
    const std::string_view token = (*tokens)[id];
    if (valid_utf8_prefix(token) != token.size())
      fail(fmt::format("key 'tokenizer.ggml.tokens': token {} is no UTF-8 text", id));
    const int64_t type = types ? (*types)[id] : kNormal;
    if (type == kUnused) continue;
    if (type == kControl || type == kUserDefined || type == kUnknown) {
      added.push_back({{"id", id},
                       {"content", token},
                       {"special", type != kUserDefined},
                       {"normalized", false},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false}});
    } else if (type != kNormal) {
      fail(fmt::format("key 'tokenizer.ggml.token_type': {} of token {} isn't read", type, id));
    } else if (!vocab.emplace(std::string(token), id).second) {
      fail(fmt::format("key 'tokenizer.ggml.tokens': token {} repeats \"{}\"", id, token));
    }
  }
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    if (valid_utf8_prefix((*merges)[rank]) != (*merges)[rank].size())
      fail(fmt::format("key 'tokenizer.ggml.merges': merge {} is no UTF-8 text", rank));
    merge_list.push_back((*merges)[rank]);
  }
  nlohmann::json normalizer;
  if (variant->second == PreTokenizer::kQwen) normalizer["type"] = "NFC";
  const nlohmann::json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", std::move(normalizer)},
      {"pre_tokenizer", pre_tokenizer_json(variant->second)},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", variant->second == PreTokenizer::kLlama3},
        {"vocab", std::move(vocab)},
        {"merges", std::move(merge_list)}}}};
  return json.dump();
}

}  // namespace tessera
