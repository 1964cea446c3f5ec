#include "core/import.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "base/files.h"
#include "base/float_bits.h"
#include "base/json.h"
#include "core/gguf_fixture.h"
#include "core/import_fixture.h"
#include "core/tensor_names.h"

namespace tessera {
namespace {
using gguf::key;

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
    keys[name] = key(name, value);
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
void make_mixtral(GgufModel& m) {
  for (const char* name : {"gate", "up", "down"}) m.remove(std::string("blk.0.ffn_") + name + ".weight");
  m.set("llama.expert_count", 3u);
  m.set("llama.expert_used_count", 2u);
  m.add("blk.0.ffn_gate_inp.weight", {8, 3});
  m.add("blk.0.ffn_gate_exps.weight", {8, 6, 3});
  m.add("blk.0.ffn_up_exps.weight", {8, 6, 3});
  m.add("blk.0.ffn_down_exps.weight", {6, 8, 3});
}

// Mistral's kind of tokenizer, small: <unk>, <s>, </s>, the bytes, "▁" 259, "a" 260, "b" 261, "▁a" 262, "ab" 263.
void make_sentence_piece(GgufModel& m, const std::string& byte_a = "<0x41>",
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

using Change = std::function<void(GgufModel&)>;

TEST_F(GgufImportTest, GgufLlama) {
  const GgufModel source;
  const ModelFolder model = import(source);
  const Trunk& t = model.architecture.trunk;
  EXPECT_EQ(t.vocab_size, 5);
  EXPECT_EQ(t.width, 8);
  EXPECT_EQ(head_dim(t), 4);
  EXPECT_EQ(t.num_kv_heads, 1);
  EXPECT_EQ(t.dense_width, 6);
  EXPECT_EQ(t.context_length, 64);
  EXPECT_EQ(t.rope_theta, 500);
  EXPECT_TRUE(t.tied_embeddings);
  EXPECT_TRUE(model.architecture.hierarchy.domains.empty());
  EXPECT_EQ(model.eos_tokens, std::vector<int32_t>{4});
  EXPECT_EQ(model.config["source"]["name"], "Tiny");
  EXPECT_EQ(read_file(model.chat_template()), "{% for message in messages %}");
  EXPECT_EQ(floats(model, "embedding"), source.values.at("token_embd.weight"));
  EXPECT_EQ(floats(model, "layers.0.feed_forward.down"), source.values.at("blk.0.ffn_down.weight"));
  std::vector<float> gate_up = source.values.at("blk.0.ffn_gate.weight");
  const std::vector<float>& up = source.values.at("blk.0.ffn_up.weight");
  gate_up.insert(gate_up.end(), up.begin(), up.end());
  EXPECT_EQ(floats(model, "layers.0.feed_forward.gate_up"), gate_up);
  // llama.cpp has the rows of a head interleaved: ours 0, 1, 2, 3 are its 0, 2, 1, 3.
  for (const auto& [ours, theirs] : {std::pair("query", "q"), std::pair("key", "k")}) {
    const std::vector<float> rows = floats(model, std::string("layers.0.attention.") + ours);
    const std::vector<float>& given = source.values.at(std::string("blk.0.attn_") + theirs + ".weight");
    for (size_t r = 0; r < rows.size() / 8; ++r) {
      const size_t from = r / 4 * 4 + std::array<size_t, 4>{0, 2, 1, 3}[r % 4];
      for (size_t i = 0; i < 8; ++i) EXPECT_EQ(rows[8 * r + i], given[8 * from + i]) << ours << " " << r;
    }
  }
  EXPECT_EQ(floats(model, "layers.0.attention.value"), source.values.at("blk.0.attn_v.weight"));
}

TEST_F(GgufImportTest, GgufTokenizer) {
  const ModelFolder model = import(GgufModel());
  const Tokenizer tokenizer = load_tokenizer(model);
  EXPECT_EQ(tokenizer.pre_tokenizer(), "smollm2");
  EXPECT_EQ(tokenizer.encode("abb"), (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(tokenizer.encode("a<|im_end|>", true), (std::vector<int32_t>{1, 4}));
  EXPECT_EQ(tokenizer.bos(), 0);
}

TEST_F(GgufImportTest, GgufMixtralStackedOrApart) {
  GgufModel stacked;
  make_mixtral(stacked);
  const ModelFolder model = import(stacked);
  EXPECT_EQ(num_components(model.architecture.hierarchy), 3);
  EXPECT_EQ(model.architecture.hierarchy.num_active, 2);
  EXPECT_EQ(model.architecture.component_router.kind, "gate");
  EXPECT_EQ(floats(model, "layers.0.selection_bias"), std::vector<float>(3));
  EXPECT_EQ(floats(model, "layers.0.router_gate"), stacked.values.at("blk.0.ffn_gate_inp.weight"));
  GgufModel apart = stacked;
  for (const char* name : {"gate", "up", "down"}) {
    const std::string whole = std::string("blk.0.ffn_") + name + "_exps.weight";
    for (size_t c = 0; c < 3; ++c) {
      const std::vector<float>& all = stacked.values.at(whole);
      const std::vector<float> part(all.begin() + static_cast<int64_t>(48 * c),
                                    all.begin() + static_cast<int64_t>(48 * (c + 1)));
      EXPECT_EQ(floats(model, fmt::format("layers.0.components.{}.{}", c, name)), part) << name << c;
      const std::string one = fmt::format("blk.0.ffn_{}.{}.weight", name, c);
      apart.shapes[one] = {stacked.shapes.at(whole)[0], stacked.shapes.at(whole)[1]};
      apart.values[one] = part;
    }
    apart.remove(whole);
  }
  const ModelFolder same = import(apart);
  for (const TensorInfo& tensor : same.weights->tensors())
    EXPECT_EQ(floats(same, tensor.name), floats(model, tensor.name)) << tensor.name;
}

TEST_F(GgufImportTest, AnotherDtype) {
  const GgufModel source;
  const ModelFolder model = import(source, {"BF16"});
  EXPECT_EQ(model.weights->at("embedding").dtype, "BF16");
  EXPECT_EQ(model.weights->at("final_norm").dtype, "F32");
  const auto bytes = model.weights->bytes(model.weights->at("embedding"));
  uint16_t bits;
  std::memcpy(&bits, bytes.data() + 2 * 39, 2);
  EXPECT_EQ(bits, bf16_from_float(source.values.at("token_embd.weight")[39]));
}

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

TEST_F(GgufImportTest, NumbersThatTheDtypeCannotHold) {
  GgufModel model;
  model.values["blk.0.attn_v.weight"][5] = 70000;
  model.write(gguf_path());
  const Error error = error_of(gguf_path(), {"F16"});
  EXPECT_NE(std::string(error.what()).find("blk.0.attn_v.weight"), std::string::npos) << error.what();
  import(model, {"BF16"});
}

TEST_F(GgufImportTest, WhatIsThereStays) {
  GgufModel().write(gguf_path());
  fs::create_directory(folder_ / "out");
  try {
    import_model(gguf_path(), folder_ / "out");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kFile);
    EXPECT_NE(std::string(e.what()).find("out"), std::string::npos);
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "out"));
  import_model(gguf_path(), folder_ / "below" / "another" / "");  // a slash at the end
  EXPECT_EQ(open_model(folder_ / "below" / "another").architecture.trunk.width, 8);
  EXPECT_EQ(error_of(folder_ / "missing").code(), ErrorCode::kFile);
}

TEST_F(GgufImportTest, WithoutATokenizerThatIsRead) {
  GgufModel model;
  model.set("tokenizer.ggml.model", std::string("t5"));  // SentencePiece's other kind
  EXPECT_FALSE(fs::exists(import(model).tokenizer()));
  GgufModel lacks_a_byte;
  make_sentence_piece(lacks_a_byte, "A?");
  EXPECT_FALSE(fs::exists(import(lacks_a_byte).tokenizer()));
  for (const char* merge : {"ab", "a c"}) {  // of one token; of one that isn't there
    GgufModel broken;
    broken.set("tokenizer.ggml.merges", std::vector<std::string>{merge});
    EXPECT_FALSE(fs::exists(import(broken).tokenizer())) << merge;
  }
}

TEST_F(GgufImportTest, ASentencePieceTextNeverBecomesAControlToken) {
  GgufModel source;
  make_sentence_piece(source, "<0x41>", {"<", "s", ">", "s>", "<s"});
  const Tokenizer tokenizer = load_tokenizer(import(source));
  EXPECT_EQ(tokenizer.encode("<s>"), (std::vector<int32_t>{259, 268, 266}));  // "<s" and "s>" score alike
}

TEST_F(GgufImportTest, SentencePieceTokenizer) {
  GgufModel source;
  make_sentence_piece(source);
  Tokenizer tokenizer = load_tokenizer(import(source));
  EXPECT_EQ(tokenizer.pre_tokenizer(), "llama2");
  EXPECT_EQ(tokenizer.encode("a ab"), (std::vector<int32_t>{262, 259, 263}));
  EXPECT_EQ(tokenizer.encode("<s>A", true), (std::vector<int32_t>{1, 259, 3 + 'A'}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a ab")), "a ab");
  EXPECT_EQ(tokenizer.bos(), 1);
  source.keys["tokenizer.ggml.add_space_prefix"] =
      gguf::key("tokenizer.ggml.add_space_prefix", gguf::kBool, std::string(1, '\0'));
  tokenizer = load_tokenizer(import(source));
  EXPECT_EQ(tokenizer.encode("a ab"), (std::vector<int32_t>{260, 259, 263}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" a")), " a");
}

TEST_F(GgufImportTest, ScaledRotaryPositions) {
  GgufModel source;
  EXPECT_TRUE(import(source).architecture.trunk.rope_divisors.empty());
  source.add("rope_freqs.weight", {2});
  source.values["rope_freqs.weight"] = {1, 1};
  EXPECT_TRUE(import(source).architecture.trunk.rope_divisors.empty());
  source.values["rope_freqs.weight"] = {1, 8};
  EXPECT_EQ(import(source).architecture.trunk.rope_divisors, (std::vector<double>{1, 8}));
  source.remove("rope_freqs.weight");
  source.set("llama.rope.scaling.type", std::string("linear"));
  source.set("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(import(source).architecture.trunk.rope_divisors, (std::vector<double>{4, 4}));
  source.keys.erase("llama.rope.scaling.type");  // linear, as for llama.cpp
  EXPECT_EQ(import(source).architecture.trunk.rope_divisors, (std::vector<double>{4, 4}));
  source.keys.erase("llama.rope.scaling.factor");
  source.set("llama.rope.scale_linear", 2.0f);  // the older name
  EXPECT_EQ(import(source).architecture.trunk.rope_divisors, (std::vector<double>{2, 2}));
  source.set("llama.rope.scaling.factor", 0.0f);
  EXPECT_TRUE(import(source).architecture.trunk.rope_divisors.empty());
}

TEST_F(GgufImportTest, ATokenizerLargerThanTheEmbeddingIsRefusedAtLoad) {
  const ModelFolder model = import(GgufModel());
  std::string json = read_file(model.tokenizer());
  for (const std::string id : {"\"id\":4", "<|im_end|>\":4"})  // its entry in added_tokens and in model.vocab
    json.replace(json.find(id) + id.size() - 1, 1, "5");
  write_file_atomic(model.tokenizer(), json);
  try {
    load_tokenizer(model);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer.json has 6 tokens, the model's embedding 5"), std::string::npos)
        << e.what();
  }
}

TEST_F(GgufImportTest, NumbersThatAreNotFiniteAreFoundAtLoad) {
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    GgufModel source;
    for (auto& [name, values] : source.values) {
      for (float& v : values) v /= 64;  // F16 holds them
    }
    const ModelFolder model = import(source, {dtype});
    for (const TensorInfo& tensor : model.weights->tensors()) EXPECT_NO_THROW(check_finite(*model.weights, tensor));
    const TensorInfo& broken = model.weights->at("layers.0.attention.value");
    std::string bytes = read_file(model.path / "model.safetensors");
    bytes.replace(broken.end - 2, 2, dtype == std::string("F16") ? std::string("\x01\x7E") : std::string("\xC0\x7F"));
    write_file_atomic(model.path / "model.safetensors", bytes);
    const ModelFolder again = open_model(model.path);
    EXPECT_NO_THROW(check_finite(*again.weights, again.weights->at("embedding")));
    try {
      check_finite(*again.weights, again.weights->at("layers.0.attention.value"));
      ADD_FAILURE() << dtype;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("'layers.0.attention.value'"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace tessera
