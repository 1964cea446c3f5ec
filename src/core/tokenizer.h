// BPE in the Hugging Face tokenizer.json format (Sennrich et al. 2016), over bytes (GPT-2's alphabet) or, as in
// SentencePiece's models, characters and bytes for those that have no token. Pre-tokenizers are named variants,
// recognised from the file: ours, GPT-2, SmolLM2, Llama-3, Qwen, Llama-2 (also Mistral's, Mixtral's, TinyLlama's).
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

class Tokenizer {
 public:
  // Throws Error{kData} naming the key that is missing, malformed or of a kind we don't read. Every id is checked.
  static Tokenizer from_file(const std::filesystem::path& path);
  static Tokenizer from_json(std::string_view json, const std::string& what);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Any bytes up to 1 GiB; text that is no UTF-8 is encoded byte by byte where it is broken. decode gives the text
  // back, but in NFC where the file asks for it (Qwen), without the bytes that the file has no token for (SmolLM2's
  // lacks 21 that are rare), and with U+2581 as a space (Llama-2, which also puts a space in front). Adds no start
  // token. Special tokens in the text ("<|bos|>") are recognised only when asked for, other added tokens always.
  // Thread-safe.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = false) const;
  // The text of the tokens, as the first of a text: Llama-2's space in front is taken off. Special tokens are left out
  // unless asked for. Ids out of range throw Error{kData}.
  std::string decode(std::span<const int32_t> tokens, bool keep_special = false) const;
  // The bytes of one token (a special token: its text).
  std::string_view token_bytes(int32_t token) const;
  bool is_special(int32_t token) const;

  int vocab_size() const;  // highest id + 1
  int32_t bos() const;     // the token that starts a document, -1: none
  std::string_view pre_tokenizer()
      const;                        // the variant's name: "tessera", "gpt2", "smollm2", "llama3", "qwen", "llama2"
  const std::string& json() const;  // the file's text, copied into each model folder

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
