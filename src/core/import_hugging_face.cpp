// Hugging Face folders: config.json, model.safetensors or its shards with an index, tokenizer.json, and the chat
// template in chat_template.jinja or tokenizer_config.json. model_type "llama" or "mixtral".
#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "core/import_source.h"
#include "core/safetensors.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

const SourceNames kHuggingFaceNames{
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer = "model.layers.{}.",
    .in_layer = {{"attention_norm", {"input_layernorm.weight"}},
                 {"attention.query", {"self_attn.q_proj.weight"}},
                 {"attention.key", {"self_attn.k_proj.weight"}},
                 {"attention.value", {"self_attn.v_proj.weight"}},
                 {"attention.output", {"self_attn.o_proj.weight"}},
                 {"feed_forward_norm", {"post_attention_layernorm.weight"}},
                 {"feed_forward.gate_up", {"mlp.gate_proj.weight", "mlp.up_proj.weight"}},
                 {"feed_forward.down", {"mlp.down_proj.weight"}},
                 {"router_gate", {"block_sparse_moe.gate.weight"}},
                 {"components.gate", {"block_sparse_moe.experts.{}.w1.weight"}},
                 {"components.up", {"block_sparse_moe.experts.{}.w3.weight"}},
                 {"components.down", {"block_sparse_moe.experts.{}.w2.weight"}}},
};

class HuggingFaceConfig {
 public:
  explicit HuggingFaceConfig(const fs::path& path) : what_(path.string()), json_(read_json_file(path)) {
    if (!json_.is_object()) fail("it is no JSON object");
  }

  Architecture architecture() const {
    const std::string kind = text("model_type", "");
    if (kind != "llama" && kind != "mixtral")
      fail("key 'model_type': \"" + kind + "\" isn't read",
           json_.contains("format") ? "a Tessera model needs no import" : "these are: llama, mixtral");
    check_unsupported();
    Architecture a;
    Trunk& t = a.trunk;
    t.vocab_size = size("vocab_size");
    t.width = size("hidden_size");
    t.num_layers = size("num_hidden_layers");
    t.num_heads = size("num_attention_heads");
    t.num_kv_heads = size("num_key_value_heads", t.num_heads);
    t.head_dim = size("head_dim", t.num_heads > 0 ? t.width / t.num_heads : 0);
    t.context_length = size("max_position_embeddings");
    const int window = size("sliding_window", 0);
    if (window > 0 && window < t.context_length) {
      log_warn("{}: beyond 'sliding_window' its attention is another; the context is cut to {} tokens", what_, window);
      t.context_length = window;
    }
    read_rope(t);
    t.norm_eps = number("rms_norm_eps", 1e-6);
    t.tied_embeddings = boolean("tie_word_embeddings", false);
    if (kind == "llama") {
      t.dense_width = size("intermediate_size");
      return a;
    }
    a.component_router.kind = "gate";
    a.hierarchy.domains = {{"all", size("num_local_experts"), false, {}}};
    a.hierarchy.num_active = size("num_experts_per_tok");
    a.hierarchy.unique_width = size("intermediate_size");
    if (a.hierarchy.num_active == 1)
      fail("key 'num_experts_per_tok': with one expert a token its weight is always 1, here it is not");
    return a;
  }

  // One id or a list of them; empty where there is none.
  std::vector<int32_t> eos_tokens(int vocab_size) const {
    const Json* value = find("eos_token_id");
    if (!value) return {};
    std::vector<int32_t> tokens;
    for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
      if (!id.is_number_integer() || id < 0 || id >= vocab_size)
        fail("key 'eos_token_id': " + shown(id) + " is no token");
      tokens.push_back(id.get<int32_t>());
    }
    return tokens;
  }

  // The template as a string, or the one named "default" of a list.
  std::string chat_template() const {
    const Json* value = find("chat_template");
    if (value && value->is_array()) {
      const Json* list = value;
      value = nullptr;
      for (const Json& entry : *list) {
        const bool is_default =
            entry.is_object() && entry.contains("template") && entry.value("name", Json()) == "default";
        if (is_default) value = &entry["template"];
      }
    }
    if (!value) return "";
    if (!value->is_string()) fail("key 'chat_template': expected a string, found " + shown(*value));
    return value->get<std::string>();
  }

  std::string text(const std::string& key, const std::string& if_missing) const {
    const Json* value = find(key);
    if (!value) return if_missing;
    if (!value->is_string()) fail("key '" + key + "': expected a string, found " + shown(*value));
    return value->get<std::string>();
  }

 private:
  [[noreturn]] void fail(const std::string& message, const std::string& hint = "") const {
    throw Error(ErrorCode::kData, what_ + ": " + message, hint);
  }
  static std::string shown(const Json& json) {
    const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
  }

  // nullptr where the key is absent or null.
  const Json* find(const std::string& key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  int size(const std::string& key, std::optional<int> if_missing = std::nullopt) const {
    const Json* value = find(key);
    if (!value && if_missing) return *if_missing;
    if (!value) fail("key '" + key + "' is missing");
    if (!value->is_number_integer() || *value < 0 || *value > INT32_MAX)
      fail("key '" + key + "': expected a size, found " + shown(*value));
    return value->get<int>();
  }
  double number(const std::string& key, double if_missing) const {
    const Json* value = find(key);
    return value ? as_number(key, *value) : if_missing;
  }
  double as_number(const std::string& key, const Json& value) const {
    if (!value.is_number()) fail("key '" + key + "': expected a number, found " + shown(value));
    return value.get<double>();
  }
  bool boolean(const std::string& key, bool if_missing) const {
    const Json* value = find(key);
    if (!value) return if_missing;
    if (!value->is_boolean()) fail("key '" + key + "': expected true or false, found " + shown(*value));
    return value->get<bool>();
  }

  // Transformers 5 has "rope_parameters", versions before it "rope_theta" and "rope_scaling".
  void read_rope(Trunk& t) const {
    t.rope_theta = number("rope_theta", 10000.0);
    for (const char* key : {"rope_parameters", "rope_scaling"}) {
      const Json* rope = find(key);
      if (!rope) continue;
      if (!rope->is_object()) fail(std::string("key '") + key + "': expected an object, found " + shown(*rope));
      const auto member = [&](const char* name, double at_least) {
        const std::string place = std::string(key) + "." + name;
        if (!rope->contains(name)) fail("key '" + place + "' is missing");
        const double value = as_number(place, (*rope)[name]);
        if (!(value >= at_least)) fail(fmt::format("key '{}': expected {} or more, found {}", place, at_least, value));
        return value;
      };
      if (rope->contains("rope_theta") && !(*rope)["rope_theta"].is_null()) t.rope_theta = member("rope_theta", 1);
      const Json type = rope->contains("rope_type") ? (*rope)["rope_type"] : rope->value("type", Json("default"));
      if (type == "default") continue;
      const int half = t.head_dim / 2;
      if (half > kMostRotations) fail(fmt::format("a head of {} rotations is too large", half));
      if (type == "linear") {
        t.rope_divisors.assign(static_cast<size_t>(half), member("factor", 1));
      } else if (type == "llama3") {
        const double context = member("original_max_position_embeddings", 1), low = member("low_freq_factor", 0),
                     high = member("high_freq_factor", 0), factor = member("factor", 1);
        if (!(high > low)) fail(std::string("key '") + key + "': high_freq_factor must be above low_freq_factor");
        t.rope_divisors.clear();
        for (int i = 0; i < half; ++i) {  // by how often a rotation comes round in the context that it was made for
          const double turns =
              context * std::pow(t.rope_theta, -static_cast<double>(i) / half) / (2 * std::numbers::pi);
          const double kept = std::clamp((turns - low) / (high - low), 0.0, 1.0);
          t.rope_divisors.push_back(1 / (kept + (1 - kept) / factor));
        }
      } else {
        fail(std::string("key '") + key + "': scaled rotary positions (" + shown(type) + ") aren't supported",
             "these are: linear, llama3");
      }
    }
  }

  // What such a model can have and ours don't.
  void check_unsupported() const {
    for (const char* key : {"attention_bias", "mlp_bias"}) {
      if (boolean(key, false)) fail(std::string("key '") + key + "': biases aren't supported");
    }
    if (const std::string act = text("hidden_act", "silu"); act != "silu")
      fail("key 'hidden_act': expected \"silu\", found \"" + act + "\"");
    if (find("quantization_config"))
      fail("key 'quantization_config': quantised folders aren't read", "import the GGUF file of the model instead");
  }

  std::string what_;
  Json json_;
};

// The files that hold the tensors.
std::vector<fs::path> weight_files(const fs::path& folder) {
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::exists(index)) return {folder / "model.safetensors"};
  const Json json = read_json_file(index);
  const auto fail = [&](const std::string& message) { throw Error(ErrorCode::kData, index.string() + ": " + message); };
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    fail("key 'weight_map': expected an object");
  std::set<std::string> names;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != name.npos || !name.ends_with(".safetensors"))
      fail("key 'weight_map." + tensor + "': expected the name of a safetensors file beside it");
    names.insert(name);
  }
  std::vector<fs::path> files;
  for (const std::string& name : names) files.push_back(folder / name);
  return files;
}

void add_tensors(const fs::path& path, ImportSource& source) {
  auto file = std::make_shared<SafetensorsFile>(path);
  for (const TensorInfo& tensor : file->tensors()) {
    const BlockFormat* format = find_format(std::string_view(tensor.dtype));
    if (!format)
      throw Error(ErrorCode::kData, path.string() + ": tensor '" + tensor.name + "': dtype " + tensor.dtype +
                                        " isn't read; F32, F16 and BF16 are");
    if (!source.tensors.emplace(tensor.name, SourceTensor{format, tensor.shape, file->bytes(tensor)}).second)
      throw Error(ErrorCode::kData, path.string() + ": tensor '" + tensor.name + "' is in another file too");
  }
  source.maps.push_back(&file->file());
  source.open_files.push_back(std::move(file));
}

}  // namespace

ImportSource open_hugging_face_source(const fs::path& folder) {
  ImportSource source;
  source.what = folder.string();
  const HuggingFaceConfig config(folder / "config.json");
  source.architecture = config.architecture();
  source.names = kHuggingFaceNames;
  source.ignored = {"rotary_emb.inv_freq"};
  if (source.architecture.trunk.tied_embeddings) source.ignored.push_back(source.names.head);
  for (const fs::path& file : weight_files(folder)) add_tensors(file, source);
  if (const fs::path path = folder / "tokenizer.json"; fs::exists(path)) {
    source.tokenizer_json = read_file(path);
  } else {
    source.no_tokenizer = "it has no tokenizer.json";
  }
  source.eos_tokens = config.eos_tokens(source.architecture.trunk.vocab_size);
  if (const fs::path path = folder / "generation_config.json"; fs::exists(path)) {
    const auto tokens = HuggingFaceConfig(path).eos_tokens(source.architecture.trunk.vocab_size);
    if (!tokens.empty()) source.eos_tokens = tokens;  // a list where config.json has one
  }
  if (const fs::path path = folder / "chat_template.jinja"; fs::exists(path)) {
    source.chat_template = read_file(path);
  } else if (const fs::path other = folder / "tokenizer_config.json"; fs::exists(other)) {
    source.chat_template = HuggingFaceConfig(other).chat_template();
  }
  source.origin = {{"format", "Hugging Face"},
                   {"file", fs::absolute(folder).lexically_normal().filename().string()},
                   {"name", config.text("_name_or_path", "")}};
  return source;
}

}  // namespace tessera
