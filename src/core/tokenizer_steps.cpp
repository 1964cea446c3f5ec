// What a tokenizer.json does to a text before and after byte-pair encoding. Two families: over bytes (GPT-2's
// alphabet), and SentencePiece's over characters (model.byte_fallback).
#include "core/tokenizer_steps.h"

#include <vector>

#include "base/error.h"
#include "core/unicode.h"

namespace tessera {

void TokenizerChecker::fail(const std::string& message, const std::string& hint) const {
  // A broken file may have megabytes where a name should be.
  std::string_view start = std::string_view(message).substr(0, 400);
  start = start.substr(0, valid_utf8_prefix(start));
  throw Error(ErrorCode::kData, what_ + ": " + std::string(start) + (start.size() < message.size() ? "..." : ""), hint);
}

std::string TokenizerChecker::text_of(const JsonValue& value) {
  return value.dump(-1, ' ', false, JsonValue::error_handler_t::replace);
}

const TokenizerChecker::JsonValue& TokenizerChecker::member(const JsonValue& object, const std::string& place,
                                                            const std::string& key) const {
  if (!object.is_object()) fail((place.empty() ? "the file" : place) + " must be an object, found " + text_of(object));
  auto found = object.find(key);
  if (found == object.end()) fail((place.empty() ? "" : place + ".") + key + " is missing");
  return *found;
}

bool TokenizerChecker::bool_member(const JsonValue& object, const std::string& place, const std::string& key,
                                   bool if_missing) const {
  if (object.find(key) == object.end()) return if_missing;
  const JsonValue& value = object[key];
  if (!value.is_boolean()) fail(place + "." + key + " must be true or false, found " + text_of(value));
  return value.get<bool>();
}

std::string TokenizerChecker::type_of(const JsonValue& object, const std::string& place) const {
  const JsonValue& type = member(object, place, "type");
  if (!type.is_string()) fail(place + ".type must be a string, found " + text_of(type));
  return type.get<std::string>();
}

namespace {

class StepReader : TokenizerChecker {
 public:
  StepReader(const TokenizerChecker& checker, const JsonValue& root, TokenizerFile& file)
      : TokenizerChecker(checker), root_(root), file_(file) {}

  void read_over_bytes() {
    read_normalizer();
    read_pre_tokenizer(member(root_, "", "pre_tokenizer"));
    check_decoder();
  }

  // kLlama2, in one of two forms: spaces are written as U+2581 by the normalizer (Prepend, Replace) or by a Metaspace.
  void read_over_characters() {
    file_.pre_tokenizer = PreTokenizer::kLlama2;
    const auto expect = [&](const JsonValue& step, const std::string& place, const char* key, const JsonValue& value) {
      if (const JsonValue& found = member(step, place, key); found != value)
        fail(place + "." + key + " must be " + text_of(value) + ", found " + text_of(found));
    };
    bool replaces = false;
    for (const JsonValue* step : steps_of("normalizer", "normalizers")) {
      const std::string type = type_of(*step, "normalizer");
      if (type == "Prepend" && !replaces && file_.space_in_front == SpaceInFront::kNone) {
        expect(*step, "normalizer.Prepend", "prepend", kSpaceSign);
        file_.space_in_front = SpaceInFront::kEvery;
      } else if (type == "Replace" && !replaces) {
        expect(*step, "normalizer.Replace", "pattern", {{"String", " "}});
        expect(*step, "normalizer.Replace", "content", kSpaceSign);
        replaces = true;
      } else {
        fail("normalizer \"" + type + "\" is of a kind we don't read here", "With byte_fallback: Prepend, Replace.");
      }
    }
    for (const JsonValue* step : steps_of("pre_tokenizer", "pretokenizers")) {
      const std::string type = type_of(*step, "pre_tokenizer");
      if (type != "Metaspace" || replaces)
        fail("pre_tokenizer \"" + type + "\" is of a kind we don't read here", "With byte_fallback: null, Metaspace.");
      expect(*step, "pre_tokenizer.Metaspace", "replacement", kSpaceSign);
      if (file_.space_in_front != SpaceInFront::kNone)
        fail("normalizer \"Prepend\" beside a Metaspace isn't supported");
      if (bool_member(*step, "pre_tokenizer.Metaspace", "split", true))
        fail("pre_tokenizer.Metaspace.split must be false", "With true no token would hold two spaces.");
      const JsonValue& scheme = member(*step, "pre_tokenizer.Metaspace", "prepend_scheme");
      if (scheme == "always") file_.space_in_front = SpaceInFront::kEveryMissing;
      if (scheme == "first") file_.space_in_front = SpaceInFront::kFirstMissing;
      if (scheme != "always" && scheme != "first" && scheme != "never")
        fail("pre_tokenizer.Metaspace.prepend_scheme " + text_of(scheme) + " is of a kind we don't read");
      replaces = true;
    }
    if (!replaces)
      fail("with model.byte_fallback spaces must be replaced by \"" + std::string(kSpaceSign) + "\"",
           "Supported: a normalizer that does (Replace), or a pre_tokenizer (Metaspace).");
    for (const JsonValue* step : steps_of("decoder", "decoders")) {
      const std::string type = type_of(*step, "decoder");
      if (type != "Replace" && type != "ByteFallback" && type != "Fuse" && type != "Strip" && type != "Metaspace")
        fail("decoder \"" + type + "\" is of a kind we don't read here",
             "With byte_fallback: Replace, ByteFallback, Fuse, Strip, Metaspace.");
    }
  }

 private:
  // The steps of "normalizer", "pre_tokenizer" or "decoder": none, one, or a Sequence.
  std::vector<const JsonValue*> steps_of(const std::string& key, const std::string& list_key) {
    const auto found = root_.find(key);
    if (found == root_.end() || found->is_null()) return {};
    if (type_of(*found, key) != "Sequence") return {&*found};
    const JsonValue& list = member(*found, key, list_key);
    if (!list.is_array()) fail(key + "." + list_key + " must be an array, found " + text_of(list));
    std::vector<const JsonValue*> steps;
    for (const JsonValue& step : list) steps.push_back(&step);
    return steps;
  }

  void read_normalizer() {
    auto normalizer = root_.find("normalizer");
    file_.nfc = normalizer != root_.end() && !normalizer->is_null();
    if (!file_.nfc) return;
    std::string type = type_of(*normalizer, "normalizer");
    if (type != "NFC") fail("normalizer \"" + type + "\" is of a kind we don't read", "Supported: null, NFC.");
  }

  void read_pre_tokenizer(const JsonValue& pre_tokenizer) {
    if (!pre_tokenizer.is_object()) fail("pre_tokenizer must be an object, found " + text_of(pre_tokenizer));
    const std::vector<const JsonValue*> steps = steps_of("pre_tokenizer", "pretokenizers");
    std::string structure;
    for (const JsonValue* step : steps) structure += (structure.empty() ? "" : ", ") + type_of(*step, "pre_tokenizer");

    auto unsupported = [&](const std::string& why) {
      fail("pre_tokenizer [" + structure + "] " + why, "Supported: " + supported_pre_tokenizers() + ".");
    };
    if (structure != "ByteLevel" && structure != "Digits, ByteLevel" && structure != "Split, ByteLevel")
      unsupported("is of a kind we don't read");
    const JsonValue& byte_level = *steps.back();
    if (bool_member(byte_level, "ByteLevel", "add_prefix_space", true)) unsupported("adds a space in front of texts");
    bool gpt2_rules = bool_member(byte_level, "ByteLevel", "use_regex", true);

    const JsonValue& first = *steps.front();
    if (structure == "Split, ByteLevel") {
      const JsonValue& pattern = member(first, "Split", "pattern");
      const JsonValue& regex = member(pattern, "Split.pattern", "Regex");
      if (!regex.is_string()) fail("Split.pattern.Regex must be a string, found " + text_of(regex));
      auto variant = pre_tokenizer_of_regex(regex.get<std::string>());
      if (!variant) unsupported("splits by a pattern we don't read: " + text_of(regex));
      if (member(first, "Split", "behavior") != "Isolated")
        unsupported("has a Split whose behavior isn't \"Isolated\"");
      if (bool_member(first, "Split", "invert", false)) unsupported("has a Split that is inverted");
      if (gpt2_rules) unsupported("splits twice (ByteLevel.use_regex after a Split)");
      file_.pre_tokenizer = *variant;
      return;
    }
    if (!gpt2_rules) unsupported("doesn't split (ByteLevel.use_regex is false)");
    file_.pre_tokenizer = structure == "ByteLevel" ? PreTokenizer::kGpt2 : PreTokenizer::kSmolLm2;
    if (structure != "ByteLevel" && !bool_member(first, "Digits", "individual_digits", false))
      unsupported("keeps digits together (Digits.individual_digits is false)");
  }

  void check_decoder() {
    auto decoder = root_.find("decoder");
    if (decoder == root_.end() || decoder->is_null()) return;
    std::string type = type_of(*decoder, "decoder");
    if (type != "ByteLevel") fail("decoder \"" + type + "\" is of a kind we don't read", "Supported: ByteLevel.");
  }

  const JsonValue& root_;
  TokenizerFile& file_;
};

}  // namespace

void read_steps(const TokenizerChecker& checker, const nlohmann::json& root, bool byte_fallback, TokenizerFile& file) {
  StepReader reader(checker, root, file);
  if (byte_fallback) {
    reader.read_over_characters();
  } else {
    reader.read_over_bytes();
  }
}

}  // namespace tessera
