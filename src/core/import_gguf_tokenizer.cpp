// A GGUF file's tokenizer.ggml.* keys as a tokenizer.json of the variant that they name.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <unordered_map>

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

constexpr size_t kMostPieceBytes = 256;  // SentencePiece's are of 16 characters unless it is told otherwise

enum TokenType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// SentencePiece merges the pair whose result has the largest score (tokenizer.ggml.scores); as merges by rank: every
// way to cut a normal token into two, as transformers' converter has them. nullopt: more ways than any real vocabulary
// has.
std::optional<nlohmann::json> merges_of_scores(const std::unordered_map<std::string_view, double>& scores) {
  struct Cut {
    double score;
    std::string_view left, right;
  };
  const size_t most = 16 * scores.size() + 1024;
  std::vector<Cut> cuts;
  for (const auto& [text, score] : scores) {
    for (size_t at = 1; at < text.size(); ++at) {
      if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;  // inside a character
      const std::string_view left = text.substr(0, at), right = text.substr(at);
      if (scores.contains(left) && scores.contains(right)) cuts.push_back({score, left, right});
    }
    if (cuts.size() > most) return std::nullopt;
  }
  std::sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) {
    return std::tuple(b.score, b.left.size(), b.right.size(), a.left, a.right) <
           std::tuple(a.score, a.left.size(), a.right.size(), b.left, b.right);
  });
  nlohmann::json merges = nlohmann::json::array();
  for (const Cut& cut : cuts) merges.push_back({cut.left, cut.right});
  return merges;
}

}  // namespace

std::string tokenizer_json_of_gguf(const GgufFile& file) {
  const auto fail = [&](const std::string& message, const std::string& hint = "") {
    throw Error(ErrorCode::kData, file.path().string() + ": " + message, hint);
  };
  const bool by_scores = file.text("tokenizer.ggml.model").value_or("") == "llama";
  const std::string_view name = by_scores ? "" : file.text("tokenizer.ggml.pre").value_or("");
  const auto found = kPreTokenizers.find(name);
  if (!by_scores && found == kPreTokenizers.end()) {
    std::string known;
    for (const auto& [theirs, ours] : kPreTokenizers) known += (known.empty() ? "" : ", ") + std::string(theirs);
    fail("key 'tokenizer.ggml.pre': \"" + std::string(name) + "\" isn't read", "these are: " + known);
  }
  const PreTokenizer variant = by_scores ? PreTokenizer::kLlama2 : found->second;
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  const auto types = file.integers("tokenizer.ggml.token_type");
  const auto merges = by_scores ? std::nullopt : file.texts("tokenizer.ggml.merges");
  const auto scores = by_scores ? file.numbers("tokenizer.ggml.scores") : std::nullopt;
  if (!tokens) fail("key 'tokenizer.ggml.tokens' is missing");
  if (!by_scores && !merges) fail("key 'tokenizer.ggml.merges' is missing");
  if (by_scores && !scores) fail("key 'tokenizer.ggml.scores' is missing");
  if (scores && scores->size() != tokens->size())
    fail(fmt::format("key 'tokenizer.ggml.scores': expected {} scores, found {}", tokens->size(), scores->size()));
  if (scores && !std::all_of(scores->begin(), scores->end(), [](double s) { return std::isfinite(s); }))
    fail("key 'tokenizer.ggml.scores': one of them is not finite");
  if (types && types->size() != tokens->size())
    fail(fmt::format("key 'tokenizer.ggml.token_type': expected {} types, found {}", tokens->size(), types->size()));

  // Objects of nlohmann's sorted kind: looking up one of 100,000 keys in an ordered one would take as many steps.
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array(),
                 merge_list = nlohmann::json::array();
  std::unordered_map<std::string_view, double> piece_scores;
  for (size_t id = 0; id < tokens->size(); ++id) {
    const std::string_view token = (*tokens)[id];
    if (valid_utf8_prefix(token) != token.size())
      fail(fmt::format("key 'tokenizer.ggml.tokens': token {} is no UTF-8 text", id));
    const int64_t type = types ? (*types)[id] : int64_t{kNormal};
    if (type == kUnused) continue;
    if (type != kNormal && type != kControl && type != kUserDefined && type != kUnknown &&
        !(by_scores && type == kByte))
      fail(fmt::format("key 'tokenizer.ggml.token_type': {} of token {} isn't read", type, id));
    // Added tokens too: `tokenizers` would give those that the vocabulary lacks other ids.
    if (!vocab.emplace(std::string(token), id).second)
      fail(fmt::format("key 'tokenizer.ggml.tokens': token {} repeats \"{}\"", id, token));
    if (by_scores && type == kNormal) {
      if (token.size() > kMostPieceBytes)  // each is cut everywhere
        fail(fmt::format("key 'tokenizer.ggml.tokens': token {} is {} bytes long", id, token.size()));
      piece_scores.emplace(token, (*scores)[id]);
    }
    if (type == kNormal || type == kByte) continue;
    added.push_back({{"id", id},
                     {"content", token},
                     {"special", type != kUserDefined},
                     {"normalized", false},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false}});
  }
  if (by_scores) {
    auto merges_by_score = merges_of_scores(piece_scores);
    if (!merges_by_score) fail("key 'tokenizer.ggml.tokens': tokens are made of each other in too many ways");
    merge_list = std::move(*merges_by_score);
  }
  for (size_t rank = 0; merges && rank < merges->size(); ++rank) {
    if (valid_utf8_prefix((*merges)[rank]) != (*merges)[rank].size())
      fail(fmt::format("key 'tokenizer.ggml.merges': merge {} is no UTF-8 text", rank));
    merge_list.push_back((*merges)[rank]);
  }
  nlohmann::json normalizer,
      decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  if (variant == PreTokenizer::kQwen) normalizer["type"] = "NFC";
  if (by_scores) {
    const bool adds_space = file.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    const nlohmann::json prepend = {{"type", "Prepend"}, {"prepend", kSpaceSign}}, fuse = {{"type", "Fuse"}},
                         bytes = {{"type", "ByteFallback"}};
    const auto replace = [](std::string_view from, std::string_view to) -> nlohmann::json {
      return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
    };
    const nlohmann::json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
    nlohmann::json before = nlohmann::json::array(), after = {replace(kSpaceSign, " "), bytes, fuse};
    if (adds_space) before.push_back(prepend), after.push_back(strip);
    before.push_back(replace(" ", kSpaceSign));
    normalizer = {{"type", "Sequence"}, {"normalizers", before}};
    decoder = {{"type", "Sequence"}, {"decoders", after}};
  }
  const nlohmann::json json = {{"version", "1.0"},
                               {"truncation", nullptr},
                               {"padding", nullptr},
                               {"added_tokens", std::move(added)},
                               {"normalizer", std::move(normalizer)},
                               {"pre_tokenizer", pre_tokenizer_json(variant)},
                               {"post_processor", nullptr},
                               {"decoder", std::move(decoder)},
                               {"model",
                                {{"type", "BPE"},
                                 {"dropout", nullptr},
                                 {"unk_token", nullptr},
                                 {"continuing_subword_prefix", nullptr},
                                 {"end_of_word_suffix", nullptr},
                                 {"fuse_unk", by_scores},
                                 {"byte_fallback", by_scores},
                                 {"ignore_merges", variant == PreTokenizer::kLlama3},
                                 {"vocab", std::move(vocab)},
                                 {"merges", std::move(merge_list)}}}};
  return json.dump();
}

}  // namespace tessera
