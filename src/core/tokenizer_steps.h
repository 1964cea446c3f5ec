// What the readers of tokenizer.json's parts have in common: members by name, and errors that say where.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/tokenizer_file.h"

namespace tessera {

class TokenizerChecker {
 public:
  using JsonValue = nlohmann::json;

  explicit TokenizerChecker(std::string what) : what_(std::move(what)) {}

  [[noreturn]] void fail(const std::string& message, const std::string& hint = "") const;

  static std::string text_of(const JsonValue& value);
  const JsonValue& member(const JsonValue& object, const std::string& place, const std::string& key) const;
  bool bool_member(const JsonValue& object, const std::string& place, const std::string& key, bool if_missing) const;
  std::string type_of(const JsonValue& object, const std::string& place) const;

 private:
  std::string what_;
};

// "normalizer", "pre_tokenizer" and "decoder", into pre_tokenizer, nfc and space_in_front. Throws Error{kData} for
// steps that we don't read.
void read_steps(const TokenizerChecker& checker, const nlohmann::json& root, bool byte_fallback, TokenizerFile& file);

}  // namespace tessera
