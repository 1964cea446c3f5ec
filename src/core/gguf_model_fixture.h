// A small GGUF model to import, whole or with something changed.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/files.h"
#include "core/gguf_fixture.h"
#include "core/import_fixture.h"

namespace tessera {

// A Llama of one layer: width 8, 2 query heads and 1 key head of 4, feed-forward 6, 5 tokens. Element i of the n-th
// matrix is 1000 n + i.
struct GgufModel {
  std::map<std::string, std::string> keys;
  std::map<std::string, std::vector<uint64_t>> shapes;  // innermost first
  std::map<std::string, std::vector<float>> values;

  void add(const std::string& name, const std::vector<uint64_t>& shape) {
    const auto number = static_cast<float>(1000 * shapes.size());
    size_t count = 1;
    for (const uint64_t s : shape) count *= s;
    shapes[name] = shape;
    for (size_t i = 0; i < count; ++i) values[name].push_back(number + static_cast<float>(i));
  }
  void remove(const std::string& name) { shapes.erase(name), values.erase(name); }
  template <class T>
  void set(const std::string& name, T value) {
    keys[name] = gguf::key(name, value);
  }

  GgufModel() {
    set("general.architecture", std::string("llama"));
    set("general.name", std::string("Tiny"));
    set("llama.context_length", 64u);
    set("llama.embedding_length", 8u);
    set("llama.block_count", 1u);
    set("llama.feed_forward_length", 6u);
    set("llama.attention.head_count", 2u);
    set("llama.attention.head_count_kv", 1u);
    set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    set("llama.rope.freq_base", 500.0f);
    set("tokenizer.ggml.model", std::string("gpt2"));
    set("tokenizer.ggml.pre", std::string("smollm"));
    set("tokenizer.ggml.tokens", std::vector<std::string>{"<|endoftext|>", "a", "b", "ab", "<|im_end|>"});
    set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1, 1, 3});
    set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    set("tokenizer.ggml.eos_token_id", 4u);
    set("tokenizer.chat_template", std::string("{% for message in messages %}"));
    add("token_embd.weight", {8, 5});
    add("output_norm.weight", {8});
    add("blk.0.attn_norm.weight", {8});
    add("blk.0.attn_q.weight", {8, 8});
    add("blk.0.attn_k.weight", {8, 4});
    add("blk.0.attn_v.weight", {8, 4});
    add("blk.0.attn_output.weight", {8, 8});
    add("blk.0.ffn_norm.weight", {8});
    add("blk.0.ffn_gate.weight", {8, 6});
    add("blk.0.ffn_up.weight", {8, 6});
    add("blk.0.ffn_down.weight", {6, 8});
  }

  void write(const fs::path& path) const {
    gguf::File file;
    for (const auto& [name, bytes] : keys) file.keys.push_back(bytes);
    for (const auto& [name, shape] : shapes) {
      file.tensors.push_back(gguf::tensor(name, shape, 0, file.data.size()));
      for (const float v : values.at(name)) file.data += gguf::raw(v);
      file.data.resize((file.data.size() + 31) / 32 * 32);
    }
    write_file_atomic(path, file.bytes());
  }
};

// The feed-forward block becomes three stacked experts of width 6.
inline void make_mixtral(GgufModel& m) {
  for (const char* name : {"gate", "up", "down"}) m.remove(std::string("blk.0.ffn_") + name + ".weight");
  m.set("llama.expert_count", 3u);
  m.set("llama.expert_used_count", 2u);
  m.add("blk.0.ffn_gate_inp.weight", {8, 3});
  m.add("blk.0.ffn_gate_exps.weight", {8, 6, 3});
  m.add("blk.0.ffn_up_exps.weight", {8, 6, 3});
  m.add("blk.0.ffn_down_exps.weight", {6, 8, 3});
}

// Mistral's kind of tokenizer, small: <unk>, <s>, </s>, the bytes, "▁" 259, "a" 260, "b" 261, "▁a" 262, "ab" 263.
inline void make_sentence_piece(GgufModel& m, const std::string& byte_a = "<0x41>",
                                const std::vector<std::string>& more = {}) {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(byte == 0x41 ? byte_a : fmt::format("<0x{:02X}>", byte));
    types.push_back(byte == 0x41 && byte_a != "<0x41>" ? 1 : 6);
  }
  for (const char* token : {"▁", "a", "b", "▁a", "ab"}) tokens.push_back(token), types.push_back(1);
  for (const std::string& token : more) tokens.push_back(token), types.push_back(1);
  std::vector<float> scores(tokens.size(), 0.0f);
  scores[262] = -2, scores[263] = -1;  // "ab" before "▁a"
  m.set("tokenizer.ggml.model", std::string("llama"));
  m.set("tokenizer.ggml.pre", std::string("default"));
  m.set("tokenizer.ggml.tokens", tokens);
  m.set("tokenizer.ggml.token_type", types);
  m.set("tokenizer.ggml.scores", scores);
  m.keys.erase("tokenizer.ggml.merges");
  m.remove("token_embd.weight");
  m.add("token_embd.weight", {8, tokens.size()});
}

class GgufImportTest : public ImportTest {
 protected:
  fs::path gguf_path() const { return folder_ / "model.gguf"; }
  ModelFolder import(const GgufModel& model, const ImportOptions& options = {}) {
    model.write(gguf_path());
    fs::remove_all(folder_ / "out");
    import_model(gguf_path(), folder_ / "out", options);
    return open_model(folder_ / "out");
  }
};

}  // namespace tessera
