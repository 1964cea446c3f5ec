#include "core/import.h"

#include <gtest/gtest.h>

#include <array>

#include "base/error.h"
#include "base/files.h"
#include "base/float_bits.h"
#include "core/gguf_model_fixture.h"

namespace tessera {
namespace {

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
