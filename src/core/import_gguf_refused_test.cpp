#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "core/gguf_model_fixture.h"

namespace tessera {
namespace {

using Change = std::function<void(GgufModel&)>;

TEST_F(GgufImportTest, GgufModelsThatAreRefused) {
  struct Case {
    const char* name;
    Change change;
    const char* part;
  };
  const auto number = [](const char* name, uint32_t value) { return [=](GgufModel& m) { m.set(name, value); }; };
  const auto without = [](const char* name) { return [=](GgufModel& m) { m.keys.erase(name); }; };
  const auto texts = [](const char* name, std::vector<std::string> values) {
    return [=](GgufModel& m) { m.set(name, values); };
  };
  const auto value = [](const char* name, float x) { return [=](GgufModel& m) { m.values[name][3] = x; }; };
  const auto scores = [](std::vector<float> values) {
    return [=](GgufModel& m) { make_sentence_piece(m), m.set("tokenizer.ggml.scores", values); };
  };
  const auto mixtral_then = [](Change change) { return [=](GgufModel& m) { make_mixtral(m), change(m); }; };
  const std::vector<Case> cases = {
      {"no architecture", without("general.architecture"), "general.architecture"},
      {"another architecture", [](GgufModel& m) { m.set("general.architecture", std::string("gpt2")); }, "\"gpt2\""},
      {"no width", without("llama.embedding_length"), "llama.embedding_length"},
      {"no layers", without("llama.block_count"), "llama.block_count"},
      {"no heads", without("llama.attention.head_count"), "llama.attention.head_count"},
      {"no epsilon", without("llama.attention.layer_norm_rms_epsilon"), "rms_epsilon"},
      {"no context", without("llama.context_length"), "llama.context_length"},
      {"no feed-forward width", without("llama.feed_forward_length"), "llama.feed_forward_length"},
      {"0 heads", number("llama.attention.head_count", 0), "num_heads"},
      {"3 heads of 2", number("llama.attention.head_count", 3), "expected shape"},
      {"0 layers", number("llama.block_count", 0), "num_layers"},
      {"2^32 - 1 layers", number("llama.block_count", UINT32_MAX), "llama.block_count"},
      {"16 million layers", number("llama.block_count", 16'000'000), "tensors"},
      {"80,000 layers", number("llama.block_count", 80'000), "80000 layers"},
      {"two layers of one", number("llama.block_count", 2), "blk.1.attn_norm.weight"},
      {"another width", number("llama.embedding_length", 16), "expected shape"},
      {"another vocabulary", number("llama.vocab_size", 6), "llama.vocab_size"},
      {"half of a head rotated", number("llama.rope.dimension_count", 2), "llama.rope.dimension_count"},
      {"values of another width", number("llama.attention.value_length", 2), "llama.attention.value_length"},
      {"width is a text", [](GgufModel& m) { m.set("llama.embedding_length", std::string("8")); }, "embedding_length"},
      {"theta of zero", [](GgufModel& m) { m.set("llama.rope.freq_base", 0.0f); }, "rope_theta"},
      {"theta is infinite", [](GgufModel& m) { m.set("llama.rope.freq_base", INFINITY); }, "freq_base"},
      {"theta is no number", [](GgufModel& m) { m.set("llama.rope.freq_base", NAN); }, "freq_base"},
      {"scaled positions", [](GgufModel& m) { m.set("llama.rope.scaling.type", std::string("yarn")); }, "yarn"},
      {"positions divided by 0",
       [](GgufModel& m) {
         m.add("rope_freqs.weight", {2}), m.values["rope_freqs.weight"] = {1, 0};
       },
       "positive"},
      {"positions of a larger head", [](GgufModel& m) { m.add("rope_freqs.weight", {4}); }, "rope_freqs.weight"},
      {"positions of a head without end", number("llama.attention.key_length", INT32_MAX), "too large"},
      {"no scores", [](GgufModel& m) { make_sentence_piece(m), m.keys.erase("tokenizer.ggml.scores"); }, "scores"},
      {"scores for fewer tokens", scores({1, 2}), "tokenizer.ggml.scores"},
      {"a score is no number", scores(std::vector<float>(264, NAN)), "tokenizer.ggml.scores"},
      {"a token without end", [](GgufModel& m) { make_sentence_piece(m, std::string(2000, 'a')); }, "2000 bytes"},
      {"tokens made of each other",
       [](GgufModel& m) {
         std::vector<std::string> more;
         for (size_t length = 2; length <= 200; ++length) more.emplace_back(length, 'a');
         make_sentence_piece(m, "<0x41>", more);
       },
       "too many ways"},
      {"one of several files", number("split.count", 4), "split.count"},
      {"no embedding", [](GgufModel& m) { m.remove("token_embd.weight"); }, "token_embd.weight"},
      {"no norm", [](GgufModel& m) { m.remove("output_norm.weight"); }, "output_norm.weight"},
      {"no query", [](GgufModel& m) { m.remove("blk.0.attn_q.weight"); }, "blk.0.attn_q.weight"},
      {"a bias", [](GgufModel& m) { m.add("blk.0.attn_q.bias", {8}); }, "blk.0.attn_q.bias"},
      {"a layer too many", [](GgufModel& m) { m.add("blk.1.attn_norm.weight", {8}); }, "blk.1.attn_norm.weight"},
      {"key of another shape",
       [](GgufModel& m) {
         m.shapes["blk.0.attn_k.weight"] = {4, 8};
       },
       "blk.0.attn_k.weight"},
      {"norm of two dimensions",
       [](GgufModel& m) {
         m.shapes["output_norm.weight"] = {8, 1};
       },
       "output_norm.weight"},
      {"NaN in a matrix", value("blk.0.ffn_up.weight", NAN), "blk.0.ffn_up.weight"},
      {"infinity in a norm", value("output_norm.weight", INFINITY), "output_norm.weight"},
      {"one expert a token", mixtral_then(number("llama.expert_used_count", 1)), "expert_used_count"},
      {"more experts than there are", mixtral_then(number("llama.expert_used_count", 4)), "num_active"},
      {"300,000 experts", mixtral_then(number("llama.expert_count", 300'000)), "300000 components"},
      {"four experts of three", mixtral_then(number("llama.expert_count", 4)), "expected shape"},
      {"an end token that isn't there", number("tokenizer.ggml.eos_token_id", 5), "eos_token_id"},
      {"no tokens", without("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens"},
      {"no merges", without("tokenizer.ggml.merges"), "tokenizer.ggml.merges"},
      {"unknown pre-tokenizer", [](GgufModel& m) { m.set("tokenizer.ggml.pre", std::string("tekken")); }, "tekken"},
      {"more tokens than the embedding has rows",
       [](GgufModel& m) {
         m.set("tokenizer.ggml.tokens", std::vector<std::string>{"0", "a", "b", "ab", "4", "5"});
         m.keys.erase("tokenizer.ggml.token_type");
       },
       "6 tokens, the embedding 5"},
      {"types for fewer tokens",
       [](GgufModel& m) {
         m.set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1});
       },
       "token_type"},
      {"a byte token",
       [](GgufModel& m) {
         m.set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 6, 1, 1, 3});
       },
       "token_type"},
      {"token twice", texts("tokenizer.ggml.tokens", {"<|endoftext|>", "a", "b", "b", "<|im_end|>"}), "repeats"},
      {"token is no UTF-8", texts("tokenizer.ggml.tokens", {"<|endoftext|>", "a", "b", "\xFF", "x"}), "UTF-8"},
      {"merge is no UTF-8", texts("tokenizer.ggml.merges", {"a \xFF"}), "UTF-8"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    GgufModel model;
    c.change(model);
    model.write(gguf_path());
    const Error error = error_of(gguf_path());
    EXPECT_EQ(error.code(), ErrorCode::kData) << error.what();
    EXPECT_EQ(std::string(error.what()).rfind(gguf_path().string(), 0), 0u) << error.what();
    EXPECT_NE(std::string(error.what()).find(c.part), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tessera
