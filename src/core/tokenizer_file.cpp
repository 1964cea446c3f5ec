#include "core/tokenizer_file.h"

#include <xxhash.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "core/tokenizer_sax.h"
#include "core/tokenizer_steps.h"
#include "core/unicode.h"

namespace tessera {
namespace {

constexpr int64_t kMaxVocabSize = 1 << 22;

// GPT-2's alphabet writes each byte as one printable character: the byte's own number where that is one, else the next
// from 256 on.
constexpr std::array<int, 256> byte_alphabet() {
  std::array<int, 256> code_points{};
  int num_shifted = 0;
  for (int byte = 0; byte < 256; ++byte) {
    bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    code_points[byte] = printable ? byte : 256 + num_shifted++;
  }
  return code_points;
}
constexpr std::array<int, 256> kByteAlphabet = byte_alphabet();
constexpr int kAlphabetEnd = 256 + 68;  // one past its largest character; all of them take one or two bytes

std::string utf8_of(int code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

struct TextHash {
  size_t operator()(std::string_view text) const { return XXH3_64bits(text.data(), text.size()); }
};

class FileReader : TokenizerChecker {
 public:
  FileReader(std::string_view json, const std::string& what)
      : TokenizerChecker(what), content_(parse_tokenizer_json(json, what)) {}

  TokenizerFile read() {
    const JsonValue& root = content_.rest;
    const JsonValue& model = member(root, "", "model");
    if (!model.is_object()) fail("model must be an object, found " + text_of(model));
    if (auto version = root.find("version"); version != root.end() && *version != "1.0")
      fail("version must be \"1.0\", found " + text_of(*version));
    check_model(model);
    read_steps(*this, root, bool_member(model, "model", "byte_fallback", false), file_);
    read_vocab();
    read_merges();
    read_added_tokens(root);
    fill_bytes();
    return std::move(file_);
  }

 private:
  void check_model(const JsonValue& model) {
    // GPT-2's own file has no type.
    std::string type = model.contains("type") ? type_of(model, "model") : "BPE";
    if (type != "BPE")
      fail("model.type \"" + type + "\" is of a kind we don't read",
           "Supported: BPE over bytes, or with byte_fallback.");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      auto value = model.find(key);
      if (value != model.end() && !value->is_null() && *value != "")
        fail(std::string("model.") + key + " must be null, found " + text_of(*value),
             "Supported: BPE over bytes, or with byte_fallback.");
    }
    if (auto dropout = model.find("dropout"); dropout != model.end() && !dropout->is_null() && *dropout != 0.0)
      fail("model.dropout must be null, found " + text_of(*dropout));
    file_.ignore_merges = bool_member(model, "model", "ignore_merges", false);
    if (file_.ignore_merges && bool_member(model, "model", "byte_fallback", false))
      fail("model.ignore_merges with byte_fallback isn't supported");
    if (!content_.has_vocab) fail("model.vocab must be an object, found " + text_of(member(model, "model", "vocab")));
    if (!content_.has_merges) fail("model.merges must be an array, found " + text_of(member(model, "model", "merges")));
  }

  void add_id(int64_t id, const std::string& token, const std::string& place) {
    // The tables are as long as the highest id, so a few tokens can't have ids in the millions.
    const auto added = content_.rest.find("added_tokens");
    const size_t num_tokens = content_.vocab.size() + (added == content_.rest.end() ? 0 : added->size());
    const int64_t limit = std::min(kMaxVocabSize, 8 * static_cast<int64_t>(num_tokens) + 1024);
    if (id < 0 || id >= limit)
      fail(place + ": token \"" + token + "\" has id " + std::to_string(id) + ", expected 0 to " +
           std::to_string(limit - 1));
    if (static_cast<size_t>(id) >= is_used_.size()) is_used_.resize(id + 1);
    if (is_used_[id]) fail(place + ": id " + std::to_string(id) + " of token \"" + token + "\" is already another's");
    is_used_[id] = true;
  }

  void read_vocab() {
    if (content_.vocab.empty()) fail("model.vocab is empty");
    ids_.reserve(content_.vocab.size());
    for (const auto& [token, id] : content_.vocab) {
      if (token.empty()) fail("model.vocab has an empty token (id " + std::to_string(id) + ")");
      add_id(id, token, "model.vocab");
      if (!ids_.emplace(token, static_cast<int32_t>(id)).second) fail("model.vocab has \"" + token + "\" twice");
      file_.model_tokens.push_back(static_cast<int32_t>(id));
    }
    const bool by_characters = file_.pre_tokenizer == PreTokenizer::kLlama2;
    for (int byte = 0; byte < 256; ++byte) {
      std::string character = by_characters ? byte_token(byte) : utf8_of(kByteAlphabet[byte]);
      auto found = ids_.find(character);
      file_.byte_tokens[byte] = found == ids_.end() ? -1 : found->second;
      // SmolLM2's own file has no tokens for 21 bytes; `tokenizers` drops them from the text, and so do we.
      if (found == ids_.end() && file_.pre_tokenizer != PreTokenizer::kSmolLm2)
        fail("model.vocab has no token \"" + character + "\" for byte " + std::to_string(byte),
             by_characters ? "Such a tokenizer is read where no character is unknown to it."
                           : "Train the tokenizer with the whole byte alphabet (initial_alphabet).");
    }
    if (!by_characters) return;
    for (const auto& [token, id] : content_.vocab) {
      const std::string text = with_spaces(token);
      if (text.find(' ', std::min(text.find_first_not_of(' '), text.size())) != text.npos)
        fail("model.vocab: token \"" + token + "\" has a space behind another character", "Supported: before them.");
      const bool is_literal_space = token == " ";  // which no text has any more when tokens are looked for
      if (!is_literal_space && valid_utf8_prefix(text) == text.size() && char_at(text, 0).num_bytes == text.size())
        file_.character_tokens.emplace_back(text, static_cast<int32_t>(id));
    }
  }

  static std::string byte_token(int byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    return {'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
  }

  int32_t merge_part(std::string_view token, size_t rank) const {
    auto found = ids_.find(token);
    if (found == ids_.end())
      fail("model.merges[" + std::to_string(rank) + "] needs \"" + std::string(token) + "\", which model.vocab lacks");
    return found->second;
  }

  void read_merges() {
    file_.merges.reserve(content_.merges.size());
    std::vector<std::pair<uint64_t, size_t>> pairs;  // both ids in one number, rank
    pairs.reserve(content_.merges.size());
    std::string merged;
    for (size_t rank = 0; rank < content_.merges.size(); ++rank) {
      const auto& [left, right] = content_.merges[rank];
      merged.assign(left).append(right);
      Merge merge{merge_part(left, rank), merge_part(right, rank), merge_part(merged, rank)};
      pairs.emplace_back(static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right), rank);
      file_.merges.push_back(merge);
    }
    std::sort(pairs.begin(), pairs.end());
    auto same = std::adjacent_find(pairs.begin(), pairs.end(), [](auto& a, auto& b) { return a.first == b.first; });
    if (same != pairs.end()) {
      const auto& [left, right] = content_.merges[same->second];
      fail("model.merges[" + std::to_string((same + 1)->second) + "] repeats \"" + left + "\" \"" + right + "\"");
    }
  }

  void read_added_tokens(const JsonValue& root) {
    auto list = root.find("added_tokens");
    if (list == root.end() || list->is_null()) return;
    if (!list->is_array()) fail("added_tokens must be an array, found " + text_of(*list));
    for (size_t i = 0; i < list->size(); ++i) {
      const JsonValue& entry = (*list)[i];
      std::string place = "added_tokens[" + std::to_string(i) + "]";
      const JsonValue& id = member(entry, place, "id");
      const JsonValue& content = member(entry, place, "content");
      if (!id.is_number_integer()) fail(place + ".id must be an integer, found " + text_of(id));
      if (!content.is_string() || content == "")
        fail(place + ".content must be a string that isn't empty, found " + text_of(content));
      for (const char* key : {"single_word", "lstrip", "rstrip"}) {
        if (bool_member(entry, place, key, false)) fail(place + "." + key + " isn't supported");
      }
      AddedToken token{0, content.get<std::string>(), bool_member(entry, place, "special", false),
                       bool_member(entry, place, "normalized", false)};
      if (token.normalized && file_.pre_tokenizer == PreTokenizer::kLlama2)
        fail(place + ".normalized with byte_fallback isn't supported");
      // nlohmann converts an unsigned one too large for int64_t into a negative one, which add_id refuses.
      auto id_value = id.get<int64_t>();
      if (auto found = ids_.find(token.text); found == ids_.end()) {
        add_id(id_value, token.text, place);
        ids_.emplace(content.get_ref<const std::string&>(), static_cast<int32_t>(id_value));
      } else if (found->second != id_value) {
        fail(place + ": \"" + token.text + "\" has id " + std::to_string(id_value) + " here and " +
             std::to_string(found->second) + " elsewhere");
      }
      token.id = static_cast<int32_t>(id_value);
      if (!added_ids_.insert(token.id).second) fail(place + " repeats \"" + token.text + "\"");
      file_.added_tokens.push_back(std::move(token));
    }
  }

  void fill_bytes() {
    file_.token_bytes.resize(is_used_.size());
    const bool by_characters = file_.pre_tokenizer == PreTokenizer::kLlama2;
    for (const AddedToken& token : file_.added_tokens)
      file_.token_bytes[token.id] = by_characters ? with_spaces(token.text) : token.text;
    if (by_characters) {
      for (const auto& [token, id] : content_.vocab) {
        if (!added_ids_.contains(static_cast<int32_t>(id))) file_.token_bytes[id] = with_spaces(token);
      }
      for (int byte = 0; byte < 256; ++byte)
        file_.token_bytes[file_.byte_tokens[byte]] = std::string(1, static_cast<char>(byte));
      return;
    }
    std::array<int, kAlphabetEnd> byte_of;
    byte_of.fill(-1);
    for (int byte = 0; byte < 256; ++byte) byte_of[kByteAlphabet[byte]] = byte;
    for (const auto& [token, id] : content_.vocab) {
      if (added_ids_.contains(static_cast<int32_t>(id))) continue;  // its own text
      std::string& bytes = file_.token_bytes[id];
      bytes.reserve(token.size());
      for (size_t pos = 0; pos < token.size();) {
        auto first = static_cast<unsigned char>(token[pos]);
        int code_point = first < 0x80   ? first
                         : first < 0xE0 ? (first & 0x1F) << 6 | (token[pos + 1] & 0x3F)
                                        : kAlphabetEnd;
        if (code_point >= kAlphabetEnd || byte_of[code_point] < 0)
          fail("model.vocab: token \"" + token + "\" has a character outside the byte alphabet");
        bytes.push_back(static_cast<char>(byte_of[code_point]));
        pos += first < 0x80 ? 1 : 2;
      }
    }
  }

  TokenizerJson content_;
  TokenizerFile file_{};
  std::unordered_map<std::string_view, int32_t, TextHash> ids_;  // of texts in content_
  std::unordered_set<int32_t> added_ids_;
  std::vector<bool> is_used_;
};

}  // namespace

TokenizerFile read_tokenizer_file(std::string_view json, const std::string& what) {
  return FileReader(json, what).read();
}

}  // namespace tessera
