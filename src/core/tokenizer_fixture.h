// For tests: a small tokenizer.json of each variant.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "core/tokenizer.h"

namespace tessera {

inline constexpr const char* kTesseraRegex =
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr const char* kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|";

inline std::string byte_character(int byte) {
  bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
  if (printable && byte < 0x80) return {static_cast<char>(byte)};
  int num_shifted = byte <= 0x20 ? byte : byte == 0xAD ? 67 : byte - 0x7F + 33;
  int code_point = printable ? byte : 256 + num_shifted;
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

inline Json split_pre_tokenizer(const std::string& regex) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}},
            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};
}

inline Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

inline Json added_token(int64_t id, const std::string& content, bool special, bool normalized = false) {
  return {{"id", id},        {"content", content},       {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", special}};
}

// Bytes are tokens 0-255; "he" 256, "ll" 257, "hell" 258, "hello" 259, " hello" 260, "ab" 261, "abab" 262, <|bos|> 263,
// <tool> 264.
inline Json small_tokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_character(byte)] = byte;
  Json merges = Json::array();
  int next_id = 256;
  for (auto [left, right] : std::vector<std::pair<std::string, std::string>>{
           {"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"Ġ", "hello"}, {"a", "b"}, {"ab", "ab"}}) {
    merges.push_back({left, right});
    vocab[left + right] = next_id++;
  }
  return {{"version", "1.0"},
          {"added_tokens", {added_token(next_id, "<|bos|>", true), added_token(next_id + 1, "<tool>", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", split_pre_tokenizer(kTesseraRegex)},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

// SentencePiece's kind. <unk> 0, <s> 1, </s> 2, bytes 3-258, "▁" 259, "a" 260, "b" 261, "é" 262, "▁a" 263, "ab" 264,
// "▁ab" 265, "▁▁" 266.
inline Json llama2_tokenizer() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    const std::string hex = "0123456789ABCDEF";
    vocab[std::string("<0x") + hex[byte / 16] + hex[byte % 16] + ">"] = 3 + byte;
  }
  int next_id = 259;
  for (const char* token : {"▁", "a", "b", "é", "▁a", "ab", "▁ab", "▁▁"}) vocab[token] = next_id++;
  Json json = small_tokenizer();
  json["added_tokens"] = {added_token(0, "<unk>", true), added_token(1, "<s>", true), added_token(2, "</s>", true)};
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers",
                         {{{"type", "Prepend"}, {"prepend", "▁"}},
                          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  json["pre_tokenizer"] = nullptr;
  json["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  json["model"]["byte_fallback"] = true;
  json["model"]["vocab"] = vocab;
  json["model"]["merges"] = {"▁ ▁", "a b", "▁ ab", "▁ a"};
  return json;
}

inline Json metaspace(const std::string& prepend_scheme) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", prepend_scheme}, {"split", false}};
}

inline Tokenizer make(const Json& json) { return Tokenizer::from_json(json.dump(), "tokenizer.json"); }

inline Json variant(const std::string& name) {
  Json json = name == "llama2" ? llama2_tokenizer() : small_tokenizer();
  if (name == "gpt2") json["pre_tokenizer"] = byte_level(true);
  if (name == "smollm2") {
    Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {digits, byte_level(true)}}};
  }
  std::string regex = std::string(kContractions) + kTesseraRegex;
  if (name == "qwen") json["pre_tokenizer"] = split_pre_tokenizer(regex);
  if (name == "llama3") {
    regex.replace(regex.find("|\\p{N}|"), 7, "|\\p{N}{1,3}|");
    json["pre_tokenizer"] = split_pre_tokenizer(regex);
  }
  return json;
}

}  // namespace tessera
