#include "core/tokenizer_sax.h"

#include <limits>

#include "base/error.h"

namespace tessera {
namespace {

constexpr size_t kMaxDepth = 32;

// Called by nlohmann's parser event by event; the names are its.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  Reader(const std::string& what, TokenizerJson& content) : what_(what), content_(content) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool b) override { return value(b); }
  bool number_integer(number_integer_t n) override { return number(n, n); }
  bool number_unsigned(number_unsigned_t n) override {
    // One too large for an id stays too large.
    return number(n, n > static_cast<uint64_t>(kTooLarge) ? kTooLarge : static_cast<int64_t>(n));
  }
  bool number_float(number_float_t x, const string_t&) override { return value(x); }
  bool binary(binary_t&) override { return true; }  // not in JSON

  bool string(string_t& text) override {
    if (part_ == Part::kMerges && !in_pair_) {
      size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) fail_merge();
      content_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
      return true;
    }
    if (part_ == Part::kMerges) {
      if (pair_.size() == 2) fail_merge();
      pair_.push_back(std::move(text));
      return true;
    }
    return value(std::move(text));
  }

  bool key(string_t& text) override {
    key_ = std::move(text);
    if (open_.size() == 1) root_key_ = key_;
    bool streamed = (at_model_key("vocab") && content_.has_vocab) || (at_model_key("merges") && content_.has_merges);
    if (part_ == Part::kRest && (streamed || open_.back()->contains(key_)))
      fail("the key \"" + key_ + "\" stands twice in one object");
    return true;
  }

  bool start_object(size_t) override {
    if (part_ == Part::kRest && at_model_key("vocab")) {
      content_.has_vocab = true;
      part_ = Part::kVocab;
      return true;
    }
    return open(nlohmann::json::object());
  }
  bool end_object() override { return close(Part::kVocab); }

  bool start_array(size_t) override {
    if (part_ == Part::kRest && at_model_key("merges")) {
      content_.has_merges = true;
      part_ = Part::kMerges;
      return true;
    }
    if (part_ == Part::kMerges) {
      if (in_pair_) fail_merge();
      in_pair_ = true;
      pair_.clear();
      return true;
    }
    return open(nlohmann::json::array());
  }
  bool end_array() override {
    if (!in_pair_) return close(Part::kMerges);
    if (pair_.size() != 2) fail_merge();
    content_.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
    in_pair_ = false;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) override {
    throw_json_error(what_, e.what());
  }

 private:
  enum class Part { kRest, kVocab, kMerges };
  static constexpr int64_t kTooLarge = std::numeric_limits<int64_t>::max();

  [[noreturn]] void fail(const std::string& message) const { throw Error(ErrorCode::kData, what_ + ": " + message); }
  [[noreturn]] void fail_merge() const {
    fail("model.merges[" + std::to_string(content_.merges.size()) +
         "] must be \"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]");
  }

  // Whether the value to come is that of model.NAME.
  bool at_model_key(const char* name) const { return open_.size() == 2 && root_key_ == "model" && key_ == name; }

  bool number(nlohmann::json json, int64_t id) {
    if (part_ != Part::kVocab) return value(std::move(json));
    content_.vocab.emplace_back(std::move(key_), id);
    return true;
  }

  // Puts the value where the parser stands, and gives the place.
  nlohmann::json* put(nlohmann::json json) {
    if (part_ == Part::kVocab) fail("model.vocab: the id of \"" + key_ + "\" must be an integer, found " + json.dump());
    if (part_ == Part::kMerges) fail_merge();
    if (open_.empty()) {
      content_.rest = std::move(json);
      return &content_.rest;
    }
    nlohmann::json& parent = *open_.back();
    if (parent.is_array()) return &parent.emplace_back(std::move(json));
    nlohmann::json& place = parent[key_];
    place = std::move(json);
    return &place;
  }

  bool value(nlohmann::json json) {
    put(std::move(json));
    return true;
  }

  bool open(nlohmann::json container) {
    if (open_.size() == kMaxDepth) fail("nested deeper than " + std::to_string(kMaxDepth) + " levels");
    open_.push_back(put(std::move(container)));
    return true;
  }

  bool close(Part part) {
    if (part_ == part) {
      part_ = Part::kRest;
    } else {
      open_.pop_back();
    }
    return true;
  }

  const std::string& what_;
  TokenizerJson& content_;
  std::vector<nlohmann::json*> open_;  // the containers around the value to come, outermost first
  std::string key_, root_key_;
  Part part_ = Part::kRest;
  bool in_pair_ = false;
  std::vector<std::string> pair_;
};

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view json, const std::string& what) {
  TokenizerJson content;
  Reader reader(what, content);
  nlohmann::json::sax_parse(json, &reader);
  return content;
}

}  // namespace tessera
