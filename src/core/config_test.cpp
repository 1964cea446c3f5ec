#include "core/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "core/config_fixture.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

// Every key that holds no object or list of objects, as a JSON pointer.
void add_leaves(const Json& json, const std::string& at, std::vector<std::string>& leaves) {
  const bool inner = json.is_object() || (json.is_array() && !json.empty() && json[0].is_object());
  if (!inner || at == "/data/mix") return leaves.push_back(at);
  for (const auto& [key, value] : json.items()) add_leaves(value, at + "/" + key, leaves);
}

// The value at `pointer` replaced must give an Error{kConfig} that names `part` (else the key itself).
void expect_refused(const std::string& pointer, const Json& value, std::string part = "") {
  if (part.empty()) part = pointer.substr(pointer.rfind('/') + 1);
  Json json = full_json();
  json[Json::json_pointer(pointer)] = value;
  const Error error = error_of(json);
  EXPECT_EQ(error.code(), ErrorCode::kConfig) << pointer << " = " << value << ": " << error.what();
  EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
      << pointer << " = " << value << ": " << error.what();
}

TEST(ConfigTest, EveryKeyComesBack) {
  const Json json = full_json();
  EXPECT_EQ(to_json(config_from_json(json)), json);
  EXPECT_EQ(to_json(config_from_json(to_json(config_from_json(json)))).dump(), to_json(config_from_json(json)).dump());
  EXPECT_EQ(to_json(architecture_from_json(json["model"])), json["model"]);

  // No key is missing above, and none holds its default.
  Json defaults = to_json(Config{});
  defaults["model"]["hierarchy"]["domains"] =
      Json::array({to_json(config_from_json(json))["model"]["hierarchy"]["domains"][0]});
  std::vector<std::string> keys;
  add_leaves(defaults, "", keys);
  EXPECT_GT(keys.size(), 60u);
  for (const std::string& key : keys) {
    ASSERT_TRUE(json.contains(Json::json_pointer(key))) << key;
    if (key.find("/domains/") == std::string::npos) {
      EXPECT_NE(json.at(Json::json_pointer(key)), defaults.at(Json::json_pointer(key))) << key;
    }
  }
}

TEST(ConfigTest, MissingKeysKeepTheirDefaults) {
  Json json = full_json();
  json["train"].erase("optimizer");
  json.erase("data");
  const Config config = config_from_json(json);
  EXPECT_EQ(config.train.optimizer.lr, OptimizerConfig{}.lr);
  EXPECT_EQ(config.data.path, DataConfig{}.path);
  EXPECT_EQ(config.train.steps, 20);
}

TEST(ConfigTest, UnknownKeysNameTheNearest) {
  for (const auto& [pointer, key, near] : std::vector<std::array<std::string, 3>>{
           {"/trian", "trian", "train"},
           {"/train/step", "train.step", "steps"},
           {"/train/optimizer/weight_deacy", "train.optimizer.weight_deacy", "weight_decay"},
           {"/model/trunk/n_layers", "model.trunk.n_layers", "num_layers"},
           {"/model/hierarchy/domains/1/nam", "model.hierarchy.domains[1].nam", "name"},
           {"/model/domain_router/margn", "model.domain_router.margn", "margin"},
           {"/data/splice-share", "data.splice-share", "splice_share"}}) {
    Json json = full_json();
    json[Json::json_pointer(pointer)] = 1;
    const Error error = error_of(json);
    EXPECT_EQ(error.code(), ErrorCode::kConfig);
    EXPECT_NE(std::string(error.what()).find("'" + key + "'"), std::string::npos) << error.what();
    EXPECT_NE(error.hint().find("'" + near + "'"), std::string::npos) << error.hint();
  }
  Json json = full_json();
  json["train"]["zzzzzzzz"] = 1;
  EXPECT_NE(error_of(json).hint().find("batch_tokens"), std::string::npos);  // nothing is near: all are listed
}

TEST(ConfigTest, AKeyThatIsGoneOpensWhereItMeantNothing) {
  Json json = full_json();
  json["model"]["trunk"]["bigram_rows"] = 0;
  EXPECT_EQ(to_json(config_from_json(json)), full_json());
  json["model"]["trunk"]["bigram_rows"] = 512;
  EXPECT_NE(error_of(json).hint().find("previous_token"), std::string::npos);
}

TEST(ConfigTest, NearestByEditDistance) {
  const std::vector<std::string> known = {"steps", "seed", "log_every", "lr"};
  EXPECT_EQ(nearest("stpes", known), "steps");
  EXPECT_EQ(nearest("step", known), "steps");
  EXPECT_EQ(nearest("sed", known), "seed");
  EXPECT_EQ(nearest("logevery", known), "log_every");
  EXPECT_EQ(nearest("lrr", known), "lr");
  EXPECT_EQ(nearest("xy", known), "");
  EXPECT_EQ(nearest("completely_else", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest("steps", {}), "");
}

// Each leaf is given a value of each other type.
TEST(ConfigTest, WrongTypes) {
  const Json json = full_json();
  std::vector<std::string> leaves;
  add_leaves(json, "", leaves);
  EXPECT_GT(leaves.size(), 70u);
  for (const std::string& leaf : leaves) {
    const Json& value = json.at(Json::json_pointer(leaf));
    for (const Json& other : {Json(nullptr), Json(true), Json("text"), Json(7), Json::array({Json::object()}),
                              Json{{"a", Json::array()}}}) {
      if (other.is_string() && value.is_string()) continue;
      if (other.type() == value.type() || (other.is_number() && value.is_number())) {
        if (leaf != "/data/mix") continue;
      }
      expect_refused(leaf, other);
    }
  }
  for (const char* inner : {"/train", "/model/trunk", "/model/hierarchy/domains/0", "/train/optimizer"}) {
    for (const Json& other : {Json(nullptr), Json(1), Json("x"), Json::array()})
      expect_refused(inner, other, "expected");
  }
  expect_refused("/data/mix/code", "much", "data.mix.code");
  expect_refused("/model/hierarchy/base/3", "0", "base[3]");
  expect_refused("/model/hierarchy/domains/1/components/0", 1, "domains[1].components[0]");
  for (const Json& whole : {Json(nullptr), Json(3), Json("x"), Json::array()})
    EXPECT_EQ(error_of(whole).code(), ErrorCode::kConfig);
}

TEST(ConfigTest, NumbersThatDoNotFit) {
  for (const char* key : {"/train/steps", "/train/num_threads", "/model/trunk/width", "/model/hierarchy/num_active"}) {
    for (const Json& value : {Json(3.5), Json(1e30), Json(-1e30), Json(9.3e18), Json(18446744073709551615ull)})
      expect_refused(key, value);
  }
  for (const char* key : {"/train/num_threads", "/model/trunk/width"}) {
    for (const Json& value : {Json(2147483648ll), Json(-2147483649ll), Json(4294967298ll)}) expect_refused(key, value);
  }
  for (const Json& value : {Json(-1), Json(-1.0), Json(0.5), Json(1e30), Json(INT64_MIN)})
    expect_refused("/train/seed", value);
  Json json = full_json();
  json["train"]["steps"] = 2e1;  // a whole number, however it is written
  EXPECT_EQ(config_from_json(json).train.steps, 20);
  json["train"]["optimizer"]["lr"] = 1;
  EXPECT_EQ(config_from_json(json).train.optimizer.lr, 1.0);
}

TEST(ConfigTest, HashChangesWithEveryValue) {
  const Json json = full_json();
  std::vector<std::string> leaves;
  add_leaves(json, "", leaves);
  std::set<std::string> hashes = {config_hash(json)};
  EXPECT_EQ(config_hash(json).size(), 16u);
  EXPECT_EQ(config_hash(json), config_hash(to_json(config_from_json(json))));
  for (const std::string& leaf : leaves) {
    Json changed = json;
    Json& value = changed[Json::json_pointer(leaf)];
    if (value.is_boolean()) {
      value = !value.get<bool>();
    } else if (value.is_number()) {
      value = value.get<double>() * 0.99;
    } else if (value.is_string()) {
      value = value.get<std::string>() + "x";
    } else {
      value = Json::array({3});
    }
    EXPECT_TRUE(hashes.insert(config_hash(changed)).second) << leaf;
  }
}

TEST(ConfigTest, HelpNamesEveryKey) {
  const std::string help = config_help();
  for (const char* key : {"--name=\"run\"", "--train.optimizer.lr=0.003", "--model.hierarchy.domains=[]",
                          "--data.mix={}", "--train.seed=1", "--model.trunk.tied_embeddings=true"}) {
    EXPECT_NE(help.find(key), std::string::npos) << key;
  }
}

TEST(ConfigTest, AFileHoldsWhatDiffersFromItsBase) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("tessera-config-base-{}", ::getpid());
  fs::create_directories(folder);
  Json base = full_json();
  write_json_file(folder / "base.json", base);
  write_json_file(folder / "middle.json",
                  {{"base", "base.json"}, {"train", {{"steps", 7}}}, {"data", {{"mix", {{"prose", nullptr}}}}}});
  write_json_file(folder / "leaf.json", {{"base", "middle.json"}, {"name", "leaf"}});
  write_json_file(folder / "circle.json", {{"base", "circle.json"}});
  write_json_file(folder / "number.json", {{"base", 3}});
  base["name"] = "leaf";
  base["train"]["steps"] = 7;
  base["data"]["mix"].erase("prose");  // null takes a key away
  EXPECT_EQ(to_json(load_config(folder / "leaf.json")), base);
  EXPECT_EQ(load_config(folder / "leaf.json", {"train.steps=9"}).train.steps, 9);
  EXPECT_THROW(load_config(folder / "circle.json"), Error);
  EXPECT_THROW(load_config(folder / "number.json"), Error);
  fs::remove_all(folder);
}

TEST(ConfigTest, ShippedConfigsLoad) {
  int num_configs = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(TESSERA_SOURCE_DIR) / "configs")) {
    if (entry.path().extension() != ".json" || entry.path().filename() == "plan.json") continue;
    EXPECT_NO_THROW(check(load_config(entry.path()))) << entry.path();
    ++num_configs;
  }
  EXPECT_GE(num_configs, 3);
}

}  // namespace
}  // namespace tessera
