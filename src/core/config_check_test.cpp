#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "base/files.h"
#include "core/config.h"
#include "core/config_fixture.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

// A merge patch of the full config, and what its Error must name.
TEST(ConfigCheckTest, ValuesThatDoNotGoTogether) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"model": {"trunk": {"num_heads": 5}}})", "num_kv_heads"},
      {R"({"model": {"trunk": {"width": 50, "head_dim": 0}}})", "'model.trunk.width' = 50"},
      {R"({"model": {"trunk": {"head_dim": 7}}})", "head_dim"},
      {R"({"model": {"trunk": {"head_dim": -2}}})", "head_dim"},
      {R"({"model": {"trunk": {"num_heads": 0}}})", "num_heads"},
      {R"({"model": {"trunk": {"num_kv_heads": 0}}})", "num_kv_heads"},
      {R"({"model": {"trunk": {"num_dense_layers": 4}}})", "num_dense_layers"},
      {R"({"model": {"trunk": {"dense_width": 0}}})", "dense_width"},
      {R"({"model": {"trunk": {"rope_theta": 0}}})", "rope_theta"},
      {R"({"model": {"trunk": {"vocab_size": -1}}})", "vocab_size"},
      {R"({"model": {"hierarchy": {"num_active": 5}}})", "num_active"},
      {R"({"model": {"hierarchy": {"num_active": 0}}})", "num_active"},
      {R"({"model": {"hierarchy": {"num_banks": 0}}})", "num_banks"},
      {R"({"model": {"hierarchy": {"base_width": -16}}})", "width"},
      {R"({"model": {"hierarchy": {"base": [0, 1]}}})", "base"},
      {R"({"model": {"hierarchy": {"base": [0, 1, 0, 1, 0, 2]}}})", "bank 2"},
      {R"({"model": {"hierarchy": {"unique_width": -1}}})", "width"},
      {R"({"model": {"hierarchy": {"domains": [{"name": "a"}, {"name": "a"}]}}})", "named twice"},
      {R"({"model": {"hierarchy": {"domains": [{"name": ""}]}}})", "domains[0].name"},
      {R"({"model": {"hierarchy": {"domains": [{"name": "a", "num_components": 0}]}}})", "num_components"},
      {R"({"model": {"hierarchy": {"domains": [{"name": "a", "always": true}]}}})", "always"},
      {R"({"model": {"hierarchy": {"domains": [{"name": "a", "components": ["one"]}]}}})", "components"},
      {R"({"model": {"hierarchy": {"domains": []}}})", "domain_router.kind"},
      {R"({"model": {"domain_router": {"kind": "encodr"}}})", "encodr"},
      {R"({"model": {"component_router": {"kind": "gate", "num_heads": 0}}})", "num_heads"},
      {R"({"train": {"optimizer": {"kind": "moun"}}})", "optimizer.kind"},
      {R"({"model": {"domain_router": {"kind": "none"}}})", "domain_router.kind"},
      {R"({"model": {"domain_router": {"width": 30}}})", "domain_router.width"},
      {R"({"model": {"domain_router": {"chunk_tokens": 8}}})", "chunk_tokens"},
      {R"({"model": {"domain_router": {"window_tokens": 16}}})", "window_tokens"},
      {R"({"model": {"domain_router": {"patch_tokens": 0}}})", "patch_tokens"},
      {R"({"model": {"domain_router": {"patch_tokens": 3}}})", "patch_tokens"},
      {R"({"model": {"domain_router": {"patch_tokens": 32}}})", "patch_tokens"},
      {R"({"model": {"domain_router": {"patch_tokens": 8, "window_tokens": 68}}})", "patch_tokens"},
      {R"({"model": {"domain_router": {"patch_tokens": 4, "chunk_tokens": 18}}})", "patch_tokens"},
      {R"({"model": {"domain_router": {"margin": 1.5}}})", "margin"},
      {R"({"model": {"domain_router": {"temperature": 0}}})", "temperature"},
      {R"({"model": {"domain_router": {"floor": 1}}})", "floor"},
      {R"({"model": {"component_router": {"kind": "planner", "num_heads": 3}}})", "component_router.width"},
      {R"({"train": {"micro_batch_tokens": 96}})", "'train.micro_batch_tokens' = 96"},
      {R"({"train": {"micro_batch_tokens": 32}})", "micro_batch_tokens"},
      {R"({"train": {"batch_tokens": 192}})", "'train.batch_tokens' = 192"},
      {R"({"train": {"steps": 0}})", "train.steps"},
      {R"({"train": {"device": "tpu"}})", "train.device"},
      {R"({"train": {"precision": "f16"}})", "train.precision"},
      {R"({"train": {"keep_checkpoints": 0}})", "keep_checkpoints"},
      {R"({"train": {"optimizer": {"lr": 0}}})", "lr"},
      {R"({"train": {"optimizer": {"beta2": 1}}})", "beta2"},
      {R"({"train": {"optimizer": {"schedule": "cosin"}}})", "schedule"},
      {R"({"train": {"loss": {"domain_dropout": -0.1}}})", "domain_dropout"},
      {R"({"data": {"splice_share": 2}})", "splice_share"},
      {R"({"data": {"repeat_share": -1}})", "repeat_share"},
      {R"({"data": {"mix": {"code": -1}}})", "data.mix.code"},
      {R"({"name": "a/b"})", "name"},
      {R"({"name": ".."})", "name"},
      {R"({"name": ""})", "name"},
      // Sizes whose products leave 32 or 64 bits.
      {R"({"model": {"trunk": {"width": 2147483647}}})", "trunk.width"},
      {R"({"model": {"trunk": {"dense_width": 2147483647}}})", "dense_width"},
      {R"({"model": {"hierarchy": {"always_on_width": 2000000000}}})", "always_on_width"},
      {R"({"model": {"hierarchy": {"unique_width": 2147483647}}})", "unique_width"},
      {R"({"model": {"domain_router": {"num_heads": 1073741824}}})", "num_heads"},
      {R"({"model": {"trunk": {"num_layers": 16000000}}})", "parameters"},
      {R"({"model": {"trunk": {"width": 16000000, "vocab_size": 16000000}}})", "parameters"},
      {R"({"model": {"hierarchy": {"base": [], "domains": [{"name": "a", "num_components": 16000000},
           {"name": "b", "num_components": 16000000}]}}})",
       "components"}};
  for (const auto& [patch, part] : cases) {
    Json json = full_json();
    json.merge_patch(Json::parse(patch));
    const Error error = error_of(json);
    EXPECT_EQ(error.code(), ErrorCode::kConfig) << patch << ": " << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << patch << ": " << error.what();
  }
}

class ConfigFileTest : public testing::Test {
 protected:
  ConfigFileTest() : file_(fs::path(testing::TempDir()) / ("tessera-config-" + std::to_string(::getpid()))) {
    write_json_file(file_, full_json());
  }
  ~ConfigFileTest() override { fs::remove(file_); }
  std::string message(const std::vector<std::string>& overrides) const {
    try {
      load_config(file_, overrides);
    } catch (const Error& e) {
      return e.what();
    }
    return "no Error was thrown";
  }
  fs::path file_;
};

TEST_F(ConfigFileTest, Overrides) {
  const Config config =
      load_config(file_, {"--train.steps=30", "train.device=cpu", "--name=other run", "--train.optimizer.lr=1e-2",
                          "--data.path=", "--data.mix.prose=0.5", "--model.hierarchy.domains.1.name=source code",
                          "--name=last=wins", "--model.hierarchy.base=[0,0,0,0,0,1]"});
  EXPECT_EQ(config.train.steps, 30);
  EXPECT_EQ(config.train.device, "cpu");
  EXPECT_EQ(config.name, "last=wins");
  EXPECT_EQ(config.data.path, "");
  EXPECT_EQ(config.data.mix.at("prose"), 0.5);
  EXPECT_EQ(config.data.mix.at("code"), 0.75);
  EXPECT_EQ(config.model.hierarchy.domains[1].name, "source code");
  EXPECT_EQ(config.model.hierarchy.base.back(), 1);
}

TEST_F(ConfigFileTest, OverridesThatAreWrong) {
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"--train.step=20", "'train.step'"},
           {"--steps=20", "'steps'"},
           {"--train.steps", "KEY=VALUE"},
           {"--=20", "KEY=VALUE"},
           {"--train.steps=", "train.steps"},
           {"--train.steps=many", "found \"many\""},
           {"--train.steps.first=1", "train.steps.first"},
           {"--train=1", "'train'"},
           {"--train..steps=1", "train..steps"},
           {"--.=1", "'.=1'"},
           {"--model.hierarchy.domains.7.name=x", "domains.7"},
           {"--model.hierarchy.domains.4000000000.name=x", "domains.4000000000"},  // no list of that length is made
           {"--model.hierarchy.domains.code.name=x", "domains.code"},
           {"--train.optimizer.lr=1e400", "lr"},
           {"--name=\xff", "UTF-8"},
           {"--data.mix.\xc3=1", "UTF-8"}}) {
    EXPECT_NE(message({text}).find(part), std::string::npos) << text << ": " << message({text});
  }
}

TEST_F(ConfigFileTest, FilesThatAreNoConfig) {
  const std::string deep(200'000, '[');
  for (const std::string& text :
       std::vector<std::string>{"", "{", "[]", "3", "null", "{\"name\": \"a\",}", "{\"name\": \"\xff\"}",
                                "{\"name\": \"a\", \"name\": \"b\"}", "{\"train\": {\"optimizer\": {\"lr\": 1e400}}}",
                                "{\"name\": " + deep + std::string(deep.size(), ']') + "}", "{\"name\": " + deep}) {
    write_file_atomic(file_, text);
    EXPECT_THROW(load_config(file_, {"--train.steps=1"}), Error) << text.substr(0, 80);
  }
  fs::remove(file_);
  EXPECT_NE(message({}).find(file_.string()), std::string::npos);
}

}  // namespace
}  // namespace tessera
