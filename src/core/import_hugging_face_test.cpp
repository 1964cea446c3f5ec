#include <gtest/gtest.h>

#include <functional>

#include "base/files.h"
#include "base/json.h"
#include "core/import_fixture.h"
#include "core/import_source.h"
#include "core/reader_fixture.h"
#include "core/tensor_names.h"

namespace tessera {
namespace {

const char* kConfig = R"({"model_type": "llama", "vocab_size": 5, "hidden_size": 8, "num_hidden_layers": 1,
  "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 6, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "rope_theta": 500.0, "eos_token_id": [4, 2]})";

// The same model as GgufModel as a folder.
void write_folder(
    const fs::path& folder, const Json& config,
    const std::function<void(std::vector<TensorToWrite>&)>& change = [](auto&) {}) {
  static const std::vector<float> numbers(64, 0.5f);
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    const auto count = static_cast<size_t>(num_elements(shape));
    tensors.push_back({name, "F32", std::move(shape), std::as_bytes(std::span(numbers).first(count))});
  };
  add("model.embed_tokens.weight", {5, 8});
  add("model.norm.weight", {8});
  const std::string layer = "model.layers.0.";
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(layer + norm + ".weight", {8});
  for (const auto& [name, rows] : {std::pair("q", 8), std::pair("k", 4), std::pair("v", 4), std::pair("o", 8)})
    add(layer + "self_attn." + name + "_proj.weight", {rows, 8});
  for (const char* name : {"gate", "up"}) add(layer + "mlp." + name + "_proj.weight", {6, 8});
  add(layer + "mlp.down_proj.weight", {8, 6});
  change(tensors);
  fs::remove_all(folder);
  fs::create_directories(folder);
  write_json_file(folder / "config.json", config);
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
}

TEST_F(ImportTest, HuggingFaceFolder) {
  write_folder(folder_ / "source", Json::parse(kConfig));
  write_json_file(
      folder_ / "source" / "tokenizer_config.json",
      {{"chat_template", {{{"name", "tool_use"}, {"template", "A"}}, {{"name", "default"}, {"template", "B"}}}}});
  import_model(folder_ / "source", folder_ / "out");
  const ModelFolder model = open_model(folder_ / "out");
  EXPECT_EQ(model.architecture.trunk.rope_theta, 500);
  EXPECT_EQ(model.eos_tokens, (std::vector<int32_t>{4, 2}));
  EXPECT_EQ(read_file(model.chat_template()), "B");
  EXPECT_EQ(floats(model, "layers.0.attention.key"), std::vector<float>(32, 0.5f));
  EXPECT_EQ(model.config["source"]["file"], "source");
}

TEST_F(ImportTest, HuggingFaceFoldersThatAreRefused) {
  struct Case {
    const char* name;
    const char* patch;  // of the config
    const char* part;
  };
  const std::vector<Case> cases = {
      {"another kind", R"({"model_type": "gpt2"})", "\"gpt2\""},
      {"no kind", R"({"model_type": null})", "model_type"},
      {"kind is a number", R"({"model_type": 3})", "model_type"},
      {"no width", R"({"hidden_size": null})", "hidden_size"},
      {"width is a string", R"({"hidden_size": "8"})", "hidden_size"},
      {"width is negative", R"({"hidden_size": -8})", "hidden_size"},
      {"width is 2^40", R"({"hidden_size": 1099511627776})", "hidden_size"},
      {"no heads", R"({"num_attention_heads": 0})", "num_heads"},
      {"no context", R"({"max_position_embeddings": null})", "max_position_embeddings"},
      {"16 million layers", R"({"num_hidden_layers": 16000000})", "tensors"},
      {"80,000 layers", R"({"num_hidden_layers": 80000})", "80000 layers"},
      {"two layers of one", R"({"num_hidden_layers": 2})", "model.layers.1.input_layernorm.weight"},
      {"no head of its own", R"({"tie_word_embeddings": false})", "lm_head.weight"},
      {"tied is a string", R"({"tie_word_embeddings": "no"})", "tie_word_embeddings"},
      {"another vocabulary", R"({"vocab_size": 6})", "model.embed_tokens.weight"},
      {"biases", R"({"attention_bias": true})", "attention_bias"},
      {"biases in the feed-forward", R"({"mlp_bias": true})", "mlp_bias"},
      {"gelu", R"({"hidden_act": "gelu"})", "hidden_act"},
      {"quantised", R"({"quantization_config": {"bits": 4}})", "quantization_config"},
      {"half of what scales positions", R"({"rope_scaling": {"rope_type": "llama3", "factor": 8}})", "original_max"},
      {"positions scaled by 0", R"({"rope_scaling": {"type": "linear", "factor": 0}})", "factor"},
      {"positions scaled by a string", R"({"rope_scaling": {"type": "linear", "factor": "2"}})", "rope_scaling.factor"},
      {"fast rotations below slow ones",
       R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
           "original_max_position_embeddings": 64}})",
       "high_freq_factor"},
      {"a head without end", R"({"head_dim": 2147483646, "rope_scaling": {"type": "linear", "factor": 2}})",
       "too large"},
      {"scaled positions, new name", R"({"rope_parameters": {"rope_type": "yarn"}})", "yarn"},
      {"positions are a number", R"({"rope_scaling": 2})", "rope_scaling"},
      {"theta is a string", R"({"rope_theta": "big"})", "rope_theta"},
      {"theta is zero", R"({"rope_theta": 0})", "rope_theta"},
      {"end token is a string", R"({"eos_token_id": "</s>"})", "eos_token_id"},
      {"end token isn't there", R"({"eos_token_id": 5})", "eos_token_id"},
      {"a Mixtral without experts", R"({"model_type": "mixtral"})", "num_local_experts"},
      {"one expert a token", R"({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 1})",
       "num_experts_per_tok"},
      {"experts that aren't there", R"({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2})",
       "block_sparse_moe.experts.0.w1"},
      {"kind is a list", R"({"model_type": ["llama"]})", "model_type"},
      {"ours already", R"({"model_type": null, "format": 1})", "model_type"},
      {"width is a fraction", R"({"hidden_size": 8.5})", "hidden_size"},
      {"width is 0", R"({"hidden_size": 0})", "width"},
      {"width that heads don't divide", R"({"hidden_size": 9})", "model.embed_tokens.weight"},
      {"another width", R"({"hidden_size": 16})", "expected shape"},
      {"no vocabulary", R"({"vocab_size": null})", "vocab_size"},
      {"vocabulary of 0", R"({"vocab_size": 0, "eos_token_id": null})", "expected shape"},
      {"vocabulary of 2^31", R"({"vocab_size": 2147483648})", "vocab_size"},
      {"no layers", R"({"num_hidden_layers": null})", "num_hidden_layers"},
      {"0 layers", R"({"num_hidden_layers": 0})", "num_layers"},
      {"layers are true", R"({"num_hidden_layers": true})", "num_hidden_layers"},
      {"layers are a list", R"({"num_hidden_layers": [1]})", "num_hidden_layers"},
      {"heads are an object", R"({"num_attention_heads": {}})", "num_attention_heads"},
      {"three heads", R"({"num_attention_heads": 3})", "q_proj"},
      {"no key heads", R"({"num_key_value_heads": 0})", "num_kv_heads"},
      {"key heads that don't divide", R"({"num_attention_heads": 4, "num_key_value_heads": 3})", "num_kv_heads"},
      {"more key heads than heads", R"({"num_key_value_heads": 4})", "num_kv_heads"},
      {"heads of odd width", R"({"head_dim": 3})", "head_dim"},
      {"head width is a string", R"({"head_dim": "4"})", "head_dim"},
      {"context of 0", R"({"max_position_embeddings": 0})", "context_length"},
      {"window is a string", R"({"sliding_window": "all"})", "sliding_window"},
      {"no feed-forward", R"({"intermediate_size": null})", "intermediate_size"},
      {"feed-forward of 0", R"({"intermediate_size": 0})", "width"},
      {"another feed-forward", R"({"intermediate_size": 12})", "expected shape"},
      {"eps is a string", R"({"rms_norm_eps": "1e-5"})", "rms_norm_eps"},
      {"eps is negative", R"({"rms_norm_eps": -1})", "norm_eps"},
      {"theta in an object is a string", R"({"rope_parameters": {"rope_theta": "big"}})", "rope_theta"},
      {"theta in an object is negative", R"({"rope_parameters": {"rope_theta": -5}})", "rope_theta"},
      {"kind of positions is a number", R"({"rope_scaling": {"rope_type": 3}})", "rope_scaling"},
      {"biases are a string", R"({"attention_bias": "yes"})", "attention_bias"},
      {"activation is a number", R"({"hidden_act": 1})", "hidden_act"},
      {"end token is negative", R"({"eos_token_id": -1})", "eos_token_id"},
      {"end tokens hold a list", R"({"eos_token_id": [[2]]})", "eos_token_id"},
      {"end token is a fraction", R"({"eos_token_id": 2.5})", "eos_token_id"},
      {"0 experts", R"({"model_type": "mixtral", "num_local_experts": 0, "num_experts_per_tok": 2})", "num_components"},
      {"more active than there are", R"({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3})",
       "num_active"},
      {"experts are a string", R"({"model_type": "mixtral", "num_local_experts": "4", "num_experts_per_tok": 2})",
       "num_local_experts"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Json config = Json::parse(kConfig);
    config.merge_patch(Json::parse(c.patch));
    write_folder(folder_ / "source", config);
    const Error error = error_of(folder_ / "source");
    EXPECT_EQ(error.code(), ErrorCode::kData) << error.what();
    EXPECT_NE(std::string(error.what()).find((folder_ / "source").string()), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(c.part), std::string::npos) << error.what();
  }
}

TEST_F(ImportTest, HuggingFaceFilesThatAreNoConfig) {
  const fs::path source = folder_ / "source";
  const std::vector<std::pair<const char*, std::string>> texts = {
      {"empty", ""},
      {"a list", "[]"},
      {"a number", "3"},
      {"null", "null"},
      {"cut off", std::string(kConfig).substr(0, 60)},
      {"a second value", std::string(kConfig) + "{}"},
      {"a comment", "// llama\n" + std::string(kConfig)},
      {"no UTF-8", "{\"model_type\": \"ll\xff\"}"},
      {"zero bytes", std::string(64, '\0')},
      {"100,000 levels deep", "{\"a\": " + std::string(100'000, '[')},
  };
  for (const char* file : {"config.json", "generation_config.json", "tokenizer_config.json"}) {
    for (const auto& [name, text] : texts) {
      SCOPED_TRACE(std::string(file) + ": " + name);
      write_folder(source, Json::parse(kConfig));
      write_file_atomic(source / file, text);
      const Error error = error_of(source);
      EXPECT_EQ(error.code(), ErrorCode::kData) << error.what();
      EXPECT_NE(std::string(error.what()).find(file), std::string::npos) << error.what();
    }
  }
}

TEST_F(ImportTest, SeededMutantsOfAHuggingFaceConfigAreReadOrRefused) {
  const fs::path source = folder_ / "source";
  write_folder(source, Json::parse(kConfig));
  const MutantCount count = read_mutants(kConfig, "0123456789-.,:[]{}\"\\eE \xff", 20261129, 1000, source.string(),
                                         [&](const std::string& text) {
                                           write_bytes(source / "config.json", text);
                                           const ImportSource read = open_hugging_face_source(source);
                                           for (const int32_t token : read.eos_tokens)
                                             EXPECT_LT(token, read.architecture.trunk.vocab_size);
                                         });
  EXPECT_GT(count.read, 50);
  EXPECT_GT(count.refused, 400);
}

TEST_F(ImportTest, HuggingFaceWeightsThatAreRefused) {
  const fs::path source = folder_ / "source";
  const auto expect = [&](const std::string& part) {
    const Error error = error_of(source);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  };
  const Json config = Json::parse(kConfig);
  write_folder(source, config, [](auto& tensors) { tensors[2].dtype = "I32"; });
  expect("model.layers.0.input_layernorm.weight");
  write_folder(source, config, [](auto& tensors) { tensors.pop_back(); });
  expect("model.layers.0.mlp.down_proj.weight");
  write_folder(source, config, [](auto& tensors) { tensors.back().shape = {6, 8}; });
  expect("expected shape [8, 6], found [6, 8]");
  write_folder(source, config, [](auto& tensors) { tensors.back().name = "model.layers.0.mlp.down_proj.bias"; });
  expect("model.layers.0.mlp.down_proj.weight");
  fs::remove(source / "model.safetensors");
  expect("model.safetensors");
  for (const char* index : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"a": 3}})",
                            R"({"weight_map": {"a": "../secret.safetensors"}})", R"({"weight_map": {"a": "a.bin"}})"}) {
    write_file_atomic(source / "model.safetensors.index.json", index);
    expect("weight_map");
  }
  write_file_atomic(source / "model.safetensors.index.json", R"({"weight_map": {"a": "model-1.safetensors"}})");
  expect("model-1.safetensors");
  write_folder(source, config);
  fs::copy_file(source / "model.safetensors", source / "b.safetensors");
  write_file_atomic(source / "model.safetensors.index.json",
                    R"({"weight_map": {"a": "model.safetensors", "b": "b.safetensors"}})");
  expect("is in another file too");
  fs::remove(source / "config.json");
  expect("config.json");
}

}  // namespace
}  // namespace tessera
