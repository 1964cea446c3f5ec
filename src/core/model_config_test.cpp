// config.json of a model folder: malformed classes and mutants.
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "core/config.h"
#include "core/config_fixture.h"
#include "core/model_file.h"
#include "core/reader_fixture.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

Json good() {
  return {{"format", "tessera-1"}, {"model", full_json()["model"]}, {"eos_tokens", {2, 7}}, {"name", "a run"}};
}

struct Malformed {
  const char* name;
  std::string text;
  const char* part;  // of the message
};

// `path`: "model.trunk.width"; the value is JSON.
std::string with(const std::string& path, const std::string& value) {
  Json json = good();
  json[Json::json_pointer("/" + path)] = Json::parse(value);
  return json.dump();
}
std::string without(const std::string& key) {
  Json json = good();
  json.erase(key);
  return json.dump();
}
std::string replaced(const std::string& from, const std::string& to) {
  std::string text = good().dump();
  return text.replace(text.find(from), from.size(), to);
}

std::vector<Malformed> malformed_configs() {
  const std::string deep = std::string(100'000, '[');
  return {
      {"empty", "", "JSON"},
      {"spaces", "  \n", "JSON"},
      {"binary", std::string("\0\1\2GGUF\xFF", 8), "JSON"},
      {"a text", "width = 8", "JSON"},
      {"cut in the middle", good().dump().substr(0, 300), "JSON"},
      {"cut by one", good().dump().substr(0, good().dump().size() - 1), "JSON"},
      {"two objects", good().dump() + "{}", "JSON"},
      {"a comment", "// config\n" + good().dump(), "JSON"},
      {"a comma at the end", replaced(R"("name":"a run")", R"("name":"a run",)"), "JSON"},
      {"no UTF-8", replaced("a run", "a \xFFrun"), "JSON"},
      {"a lone surrogate", replaced("a run", "\\ud800"), "JSON"},
      {"a number beyond a double", replaced("5000.0", "1e999"), "JSON"},
      {"not a number", replaced("5000.0", "NaN"), "JSON"},
      {"infinite", replaced("5000.0", "Infinity"), "JSON"},
      {"single quotes", replaced("\"a run\"", "'a run'"), "JSON"},
      {"100,000 brackets", deep, "deep"},
      {"nested deep", with("model/trunk/width", std::string(70, '[') + std::string(70, ']')), "deep"},
      {"a list", "[]", "no JSON object"},
      {"a number", "3", "no JSON object"},
      {"null", "null", "no JSON object"},
      {"a string", "\"tessera-1\"", "no JSON object"},
      {"no keys", "{}", "'format'"},
      {"no format", without("format"), "'format'"},
      {"format of tomorrow", with("format", "\"tessera-2\""), "tessera-2"},
      {"format is a number", with("format", "1"), "'format'"},
      {"no model", without("model"), "'model'"},
      {"model is null", with("model", "null"), "'model'"},
      {"model is a list", with("model", "[]"), "'model'"},
      {"model is a string", with("model", "\"llama\""), "'model'"},
      {"a key twice", replaced(R"("width":48)", R"("width":48,"width":64)"), "\"width\" is there twice"},
      {"model twice", replaced(R"("eos_tokens")", R"("model":{},"eos_tokens")"), "\"model\" is there twice"},
      {"unknown key", with("model/trunk/widht", "48"), "model.trunk.widht"},
      {"unknown group", with("model/trunks", "{}"), "model.trunks"},
      {"trunk is null", with("model/trunk", "null"), "model.trunk"},
      {"trunk is a list", with("model/trunk", "[48]"), "model.trunk"},
      {"width is a string", with("model/trunk/width", "\"48\""), "model.trunk.width"},
      {"width is null", with("model/trunk/width", "null"), "model.trunk.width"},
      {"width is true", with("model/trunk/width", "true"), "model.trunk.width"},
      {"width is a fraction", with("model/trunk/width", "48.5"), "model.trunk.width"},
      {"width is 0", with("model/trunk/width", "0"), "model.trunk.width"},
      {"width is negative", with("model/trunk/width", "-48"), "model.trunk.width"},
      {"width is 2^31", with("model/trunk/width", "2147483648"), "model.trunk.width"},
      {"width is 2^32 + 48", with("model/trunk/width", "4294967344"), "model.trunk.width"},
      {"width is 2^64 - 1", with("model/trunk/width", "18446744073709551615"), "model.trunk.width"},
      {"width is -2^63", with("model/trunk/width", "-9223372036854775808"), "model.trunk.width"},
      {"width is 1e300", with("model/trunk/width", "1e300"), "model.trunk.width"},
      {"width is larger than any machine", with("model/trunk/width", "1000000000"), "model.trunk.width"},
      {"vocabulary of none", with("model/trunk/vocab_size", "0"), "vocab_size"},
      {"vocabulary of 10^9", with("model/trunk/vocab_size", "1000000000"), "vocab_size"},
      {"no layers", with("model/trunk/num_layers", "0"), "num_layers"},
      {"2^31 - 1 layers", with("model/trunk/num_layers", "2147483647"), "num_layers"},
      {"16 million layers", with("model/trunk/num_layers", "16000000"), "tensors"},
      {"more dense layers than layers", with("model/trunk/num_dense_layers", "4"), "num_dense_layers"},
      {"no heads", with("model/trunk/num_heads", "0"), "num_heads"},
      {"5 heads for 3", with("model/trunk/num_heads", "5"), "num_kv_heads"},
      {"no key heads", with("model/trunk/num_kv_heads", "0"), "num_kv_heads"},
      {"odd heads", with("model/trunk/head_dim", "7"), "head_dim"},
      {"context of one", with("model/trunk/context_length", "1"), "context_length"},
      {"theta 0", with("model/trunk/rope_theta", "0"), "rope_theta"},
      {"theta negative", with("model/trunk/rope_theta", "-1"), "rope_theta"},
      {"epsilon is a string", with("model/trunk/norm_eps", "\"1e-5\""), "norm_eps"},
      {"tied is a number", with("model/trunk/tied_embeddings", "1"), "tied_embeddings"},
      {"hierarchy is null", with("model/hierarchy", "null"), "model.hierarchy"},
      {"domains is a string", with("model/hierarchy/domains", "\"code\""), "domains"},
      {"domains is an object", with("model/hierarchy/domains", R"({"name":"code"})"), "domains"},
      {"a domain is a string", with("model/hierarchy/domains", R"(["code"])"), "domains[0]"},
      {"a domain without a name", with("model/hierarchy/domains/1/name", "\"\""), "domains[1].name"},
      {"a domain's name is a number", with("model/hierarchy/domains/1/name", "1"), "domains[1].name"},
      {"a domain twice", with("model/hierarchy/domains/1/name", "\"prose\""), "named twice"},
      {"a domain of no components", with("model/hierarchy/domains/1/num_components", "0"), "num_components"},
      {"a domain of -1 components", with("model/hierarchy/domains/1/num_components", "-1"), "num_components"},
      {"a domain of 16 million components", with("model/hierarchy/domains/2/num_components", "16000000"), "hierarchy"},
      {"components unlike their number", with("model/hierarchy/domains/1/components", R"(["one"])"), "components"},
      {"component's name is a number", with("model/hierarchy/domains/1/components", "[1,2]"), "components[0]"},
      {"every domain is general", with("model/hierarchy/domains", R"([{"name":"a","always":true}])"), "always"},
      {"more active than there are", with("model/hierarchy/num_active", "9"), "num_active"},
      {"none active", with("model/hierarchy/num_active", "0"), "num_active"},
      {"a bank that isn't there", with("model/hierarchy/base", "[1,0,1,0,1,2]"), "bank 2"},
      {"a negative bank", with("model/hierarchy/base", "[1,0,1,0,1,-1]"), "bank -1"},
      {"too few banks named", with("model/hierarchy/base", "[1,0]"), "base"},
      {"bank is a string", with("model/hierarchy/base", R"(["1",0,1,0,1,0])"), "base[0]"},
      {"banks without width", with("model/hierarchy/base_width", "0"), "base_width"},
      {"negative width", with("model/hierarchy/unique_width", "-8"), "width"},
      {"unknown kind of router", with("model/domain_router/kind", "\"encodr\""), "encodr"},
      {"kind is a number", with("model/component_router/kind", "3"), "component_router.kind"},
      {"router of no width", with("model/domain_router/width", "0"), "domain_router.width"},
      {"router's heads don't divide", with("model/domain_router/num_heads", "5"), "domain_router"},
      {"chunks of 8 tokens", with("model/domain_router/chunk_tokens", "8"), "chunk_tokens"},
      {"margin above 1", with("model/domain_router/margin", "1.5"), "margin"},
      {"temperature 0", with("model/domain_router/temperature", "0"), "temperature"},
      {"a negative floor", with("model/domain_router/floor", "-0.1"), "floor"},
      {"eos_tokens is a number", with("eos_tokens", "2"), "eos_tokens"},
      {"an end token that isn't there", with("eos_tokens", "[512]"), "512"},
      {"a negative end token", with("eos_tokens", "[-1]"), "-1"},
      {"an end token is a string", with("eos_tokens", R"(["</s>"])"), "eos_tokens"},
      {"an end token of 2^64 - 1", with("eos_tokens", "[18446744073709551615]"), "eos_tokens"},
      {"a megabyte where a name should be", with("model/domain_router/kind", '"' + std::string(1 << 20, 'x') + '"'),
       "domain_router.kind"},
  };
}

class ModelConfigTest : public testing::Test {
 protected:
  ModelConfigTest()
      : path_(fs::path(testing::TempDir()) / ("tessera-config-" + std::to_string(::getpid()) + ".json")) {}
  ~ModelConfigTest() override { fs::remove(path_); }
  ModelConfig read(const std::string& text) const {
    write_bytes(path_, text);
    return read_model_config(path_);
  }
  fs::path path_;
};

TEST_F(ModelConfigTest, ReadsAConfig) {
  const ModelConfig config = read(good().dump());
  EXPECT_EQ(to_json(config.architecture), good()["model"]);
  EXPECT_EQ(config.eos_tokens, (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(config.json["name"], "a run");
  EXPECT_TRUE(read(without("eos_tokens")).eos_tokens.empty());
}

TEST_F(ModelConfigTest, MalformedConfigsAreNamed) {
  const std::vector<Malformed> all = malformed_configs();
  EXPECT_GE(all.size(), 60u);
  std::set<std::string> names;
  for (const Malformed& malformed : all) {
    SCOPED_TRACE(malformed.name);
    EXPECT_TRUE(names.insert(malformed.name).second);
    take_largest_allocation();
    try {
      read(malformed.text);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& e) {
      const std::string message = e.what();
      EXPECT_EQ(e.code(), ErrorCode::kData);
      EXPECT_EQ(message.rfind(path_.string(), 0), 0u) << message;
      EXPECT_NE(message.find(malformed.part), std::string::npos) << message;
      EXPECT_LE(message.size(), 800u);
    }
    expect_allocation_within(malformed.text.size());
  }
}

TEST_F(ModelConfigTest, SeededMutantsAreReadOrRefused) {
  const MutantCount count = read_mutants(good().dump(), "0123456789-.,:[]{}\"\\eE \xff", 20261125, 2500, path_.string(),
                                         [&](const std::string& bytes) { read(bytes); });
  EXPECT_GT(count.read, 50);
  EXPECT_GT(count.refused, 1000);
}

}  // namespace
}  // namespace tessera
