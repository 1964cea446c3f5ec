#include "core/model_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/error.h"
#include "core/config.h"
#include "core/tensor_names.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

Architecture small_architecture() {
  Architecture a;
  a.trunk = {.vocab_size = 20, .width = 8, .num_layers = 2, .num_heads = 2, .num_kv_heads = 1};
  a.hierarchy.domains = {{"code", 2, false, {}}, {"prose", 2, false, {}}};
  a.hierarchy.num_banks = 2;
  a.hierarchy.base_width = 4;
  a.hierarchy.unique_width = 4;
  a.domain_router = {.kind = "encoder", .width = 8, .num_layers = 1, .num_heads = 2};
  a.component_router = {.kind = "planner", .width = 8, .num_layers = 1, .num_heads = 2};
  return a;
}

class ModelFileTest : public testing::Test {
 protected:
  ModelFileTest() {
    std::string name = (fs::temp_directory_path() / "tessera-model-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
    folder_ = name;
    config_ = {{"format", "tessera-1"}, {"model", to_json(small_architecture())}};
    for (const TensorSpec& spec : tensor_specs(small_architecture())) {
      const auto size = 4 * static_cast<size_t>(num_elements(spec.shape));
      tensors_.push_back({spec.name, "F32", spec.shape, std::span(zeros_).first(size), spec.page_start});
    }
  }
  ~ModelFileTest() override { fs::remove_all(folder_); }

  void write_weights(const fs::path& model) const {
    write_safetensors(model / "model.safetensors", tensors_, {{kConfigHashKey, config_hash(config_)}});
  }
  fs::path write_model(const fs::path& model) const {
    fs::create_directories(model);
    write_json_file(model / "config.json", config_);
    write_weights(model);
    return model;
  }
  TensorToWrite& tensor(const std::string& name) {
    for (TensorToWrite& t : tensors_) {
      if (t.name == name) return t;
    }
    throw std::runtime_error(name);
  }
  // What open_model throws.
  static Error error_of(const fs::path& path) {
    try {
      open_model(path);
    } catch (const Error& e) {
      return e;
    }
    return Error(ErrorCode::kUsage, "no Error was thrown");
  }
  void expect_error(const fs::path& path, const std::vector<std::string>& parts, ErrorCode code = ErrorCode::kData) {
    const Error error = error_of(path);
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what() << "\nlacks " << part;
  }

  fs::path folder_;
  Json config_;
  std::vector<std::byte> zeros_ = std::vector<std::byte>(1 << 14);
  std::vector<TensorToWrite> tensors_;
};

TEST_F(ModelFileTest, OpensAModelFolder) {
  const fs::path path = write_model(folder_ / "mine");
  const ModelFolder model = open_model(path);
  EXPECT_EQ(model.path, path);
  EXPECT_EQ(to_json(model.architecture), config_["model"]);
  EXPECT_EQ(model.weights->tensors().size(), tensors_.size());
  EXPECT_EQ(model.tokenizer(), path / "tokenizer.json");
  EXPECT_EQ(resolve_model(folder_ / "mine"), path);
}

TEST_F(ModelFileTest, ARunMeansItsNewestCheckpoint) {
  for (const char* step : {"step-00000010", "step-00000200", "step-00000090"})
    write_model(folder_ / "checkpoints" / step / "model");
  EXPECT_EQ(resolve_model(folder_), folder_ / "checkpoints" / "step-00000200" / "model");
  // A checkpoint by itself is taken too.
  EXPECT_EQ(resolve_model(folder_ / "checkpoints" / "step-00000010"),
            folder_ / "checkpoints" / "step-00000010" / "model");
  EXPECT_EQ(open_model(folder_).path, folder_ / "checkpoints" / "step-00000200" / "model");

  // Those that are being written, and what is no checkpoint, don't count.
  write_model(folder_ / "checkpoints" / "step-00000300.writing" / "model");
  write_model(folder_ / "checkpoints" / "backup-00000400" / "model");
  fs::create_directories(folder_ / "checkpoints" / "step-00000500");
  write_file_atomic(folder_ / "checkpoints" / "step-00000600", "a file");
  EXPECT_EQ(resolve_model(folder_), folder_ / "checkpoints" / "step-00000200" / "model");
}

TEST_F(ModelFileTest, CheckpointsOldestFirst) {
  EXPECT_TRUE(list_checkpoints(folder_).empty());
  for (const char* name : {"step-00000020", "step-00000003", "step-00000100.writing", "other"})
    fs::create_directories(folder_ / "checkpoints" / name);
  EXPECT_EQ(list_checkpoints(folder_), (std::vector<fs::path>{folder_ / "checkpoints" / "step-00000003",
                                                              folder_ / "checkpoints" / "step-00000020"}));
}

TEST_F(ModelFileTest, WhatIsNoModelIsNamed) {
  expect_error(folder_ / "missing", {"missing"}, ErrorCode::kFile);
  expect_error(folder_, {folder_.string(), "neither"}, ErrorCode::kFile);
  write_file_atomic(folder_ / "file", "x");
  expect_error(folder_ / "file", {"file"}, ErrorCode::kFile);
  expect_error(folder_ / "file" / "below", {"below"}, ErrorCode::kFile);
  expect_error(folder_ / std::string(400, 'n'), {"nnn"}, ErrorCode::kFile);  // longer than a name can be
  fs::create_directories(folder_ / "checkpoints");
  expect_error(folder_, {"neither"}, ErrorCode::kFile);
  write_json_file(folder_ / "config.json", config_);  // no weights beside it
  expect_error(folder_, {"neither"}, ErrorCode::kFile);
}

TEST_F(ModelFileTest, BrokenConfigIsNamed) {
  write_model(folder_);
  for (const char* text : {"", "{", "[]", "null", "3", "{\"format\": \"tessera-1\"}"}) {
    write_file_atomic(folder_ / "config.json", text);
    expect_error(folder_, {"config.json"});
  }
  write_file_atomic(folder_ / "config.json", "{\"format\": \"tessera-1\"}");
  expect_error(folder_, {"config.json", "'model'"});
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"trunk": {"width": "8"}})", "model.trunk.width"},
      {R"({"trunk": {"widht": 8}})", "model.trunk.widht"},
      {R"({"trunk": {"num_heads": 3}})", "num_heads"},
      {R"({"trunk": {"width": 1e30}})", "model.trunk.width"},
      {R"({"trunk": {"num_layers": 2147483647}})", "num_layers"},
      {R"({"hierarchy": null})", "model.hierarchy"},
      {R"({"hierarchy": {"domains": "code"}})", "domains"}};
  for (const auto& [patch, part] : cases) {
    Json config = config_;
    const Json parsed = Json::parse(patch);
    for (const auto& [group, values] : parsed.items()) {
      if (!values.is_object()) config["model"][group] = values;
      if (values.is_object()) config["model"][group].update(values);
    }
    write_json_file(folder_ / "config.json", config);
    expect_error(folder_, {"config.json", part});
  }
}

TEST_F(ModelFileTest, ConfigOfAnotherModelIsRefused) {
  write_model(folder_);
  Json other = config_;
  other["model"]["trunk"]["rope_theta"] = 5000.0;  // no shape changes
  write_json_file(folder_ / "config.json", other);
  expect_error(folder_, {folder_.string(), "config.json"});
  EXPECT_FALSE(error_of(folder_).hint().empty());
}

TEST_F(ModelFileTest, MissingTensorIsNamed) {
  for (const char* name : {"embedding", "layers.1.components.3.down", "final_norm", "layers.0.selection_bias"}) {
    const auto all = tensors_;
    std::erase_if(tensors_, [&](const TensorToWrite& t) { return t.name == name; });
    write_model(folder_);
    expect_error(folder_, {"model.safetensors", name});
    tensors_ = all;
  }
}

TEST_F(ModelFileTest, WrongShapeIsNamed) {
  const auto all = tensors_;
  std::swap(tensor("embedding").shape[0], tensor("embedding").shape[1]);
  write_model(folder_);
  expect_error(folder_, {"'embedding'", "[20, 8]", "[8, 20]"});
  tensors_ = all;
  tensor("final_norm").shape = {8, 1};
  write_model(folder_);
  expect_error(folder_, {"'final_norm'", "[8]", "[8, 1]"});
}

TEST_F(ModelFileTest, ExtraTensorIsNamed) {
  tensors_.push_back({"layers.2.attention.query", "F32", {2}, std::span(zeros_).first(8)});
  write_model(folder_);
  expect_error(folder_, {"model.safetensors", "layers.2.attention.query"});
}

TEST_F(ModelFileTest, TruncatedWeightsAreNamed) {
  write_model(folder_);
  fs::resize_file(folder_ / "model.safetensors", fs::file_size(folder_ / "model.safetensors") - 1);
  expect_error(folder_, {"model.safetensors"});
  write_file_atomic(folder_ / "model.safetensors", "");
  expect_error(folder_, {"model.safetensors"});
}

}  // namespace
}  // namespace tessera
