// GGUF files of architecture "llama", which is also Mixtral's, as llama.cpp's convert_hf_to_gguf.py writes them.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/load.h"
#include "base/log.h"
#include "core/gguf.h"
#include "core/import_source.h"

namespace tessera {
namespace {

const SourceNames kGgufNames{
    .embedding = "token_embd.weight",
    .final_norm = "output_norm.weight",
    .head = "output.weight",
    .layer = "blk.{}.",
    .in_layer = {{"attention_norm", {"attn_norm.weight"}},
                 {"attention.query", {"attn_q.weight"}},
                 {"attention.key", {"attn_k.weight"}},
                 {"attention.value", {"attn_v.weight"}},
                 {"attention.output", {"attn_output.weight"}},
                 {"feed_forward_norm", {"ffn_norm.weight"}},
                 {"feed_forward.gate_up", {"ffn_gate.weight", "ffn_up.weight"}},
                 {"feed_forward.down", {"ffn_down.weight"}},
                 {"router_gate", {"ffn_gate_inp.weight"}},
                 {"components.gate", {"ffn_gate_exps.weight"}},
                 {"components.up", {"ffn_up_exps.weight"}},
                 {"components.down", {"ffn_down_exps.weight"}}},
    .interleaved_rope = true,
};

constexpr const char* kRopeTensor = "rope_freqs.weight";

class GgufModel {
 public:
  explicit GgufModel(const GgufFile& file) : file_(file), what_(file.path().string()) {}

  Architecture architecture() const {
    const std::string kind(file_.text("general.architecture").value_or(""));
    if (kind != "llama")
      fail("key 'general.architecture': \"" + kind + "\" isn't read", "\"llama\" is: Llama, Mistral, Mixtral, SmolLM2");
    check_unsupported();
    Architecture a;
    Trunk& t = a.trunk;
    t.vocab_size = vocab_size();
    t.width = size("llama.embedding_length");
    t.num_layers = size("llama.block_count");
    t.num_heads = size("llama.attention.head_count");
    t.num_kv_heads = size("llama.attention.head_count_kv", t.num_heads);
    t.head_dim = size("llama.attention.key_length", t.num_heads > 0 ? t.width / t.num_heads : 0);
    t.context_length = size("llama.context_length");
    t.rope_theta = number("llama.rope.freq_base", 10000.0);
    t.rope_divisors = rope_divisors(t.head_dim / 2);
    t.norm_eps = number("llama.attention.layer_norm_rms_epsilon");
    t.tied_embeddings = !has_tensor("output.weight");
    expect_equal("llama.attention.value_length", t.head_dim);
    expect_equal("llama.rope.dimension_count", t.head_dim);
    const int width = size("llama.feed_forward_length"), experts = size("llama.expert_count", 0);
    a.component_router.kind = experts > 0 ? "gate" : a.component_router.kind;
    if (experts == 0) {
      t.dense_width = width;
      return a;
    }
    a.hierarchy.domains = {{"all", experts, false, {}}};
    a.hierarchy.num_active = size("llama.expert_used_count");
    a.hierarchy.unique_width = width;
    if (a.hierarchy.num_active == 1)
      fail("key 'llama.expert_used_count': with one expert a token its weight is always 1, here it is not");
    return a;
  }

  bool has_tensor(const std::string& name) const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (tensor.name == name) return true;
    }
    return false;
  }

  std::vector<int32_t> eos_tokens(int vocab_size) const {
    std::vector<int32_t> tokens;
    for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
      const std::optional<int64_t> id = file_.integer(key);
      if (!id || std::find(tokens.begin(), tokens.end(), *id) != tokens.end()) continue;
      if (*id < 0 || *id >= vocab_size) fail(fmt::format("key '{}': {} is no token", key, *id));
      tokens.push_back(static_cast<int32_t>(*id));
    }
    return tokens;
  }

 private:
  [[noreturn]] void fail(const std::string& message, const std::string& hint = "") const {
    throw Error(ErrorCode::kData, what_ + ": " + message, hint);
  }

  // What a Llama can have and our models don't.
  void check_unsupported() const {
    if (file_.integer("split.count").value_or(1) > 1)
      fail("key 'split.count': the model is split over several files", "join them: llama-gguf-split --merge");
  }

  // Llama 3.1 and later have them in a tensor.
  std::vector<double> rope_divisors(int count) const {
    const std::string_view scaling = file_.text("llama.rope.scaling.type").value_or("linear");  // as llama.cpp
    if (scaling != "none" && scaling != "linear")
      fail("key 'llama.rope.scaling.type': \"" + std::string(scaling) + "\" isn't supported", "\"linear\" is");
    if (count > kMostRotations) fail(fmt::format("a head of {} rotations is too large", count));
    double factor = 1;
    if (scaling == "linear") factor = number("llama.rope.scaling.factor", number("llama.rope.scale_linear", 1.0));
    if (factor == 0) factor = 1;  // so written where there is none
    std::vector<double> divisors(static_cast<size_t>(count), factor);
    for (const GgufTensor& tensor : file_.tensors()) {
      if (tensor.name != kRopeTensor) continue;
      if (tensor.format != find_format("F32") || tensor.shape != std::vector<int64_t>{count})
        fail(fmt::format("tensor '{}': expected {} numbers of type F32", kRopeTensor, count));
      const std::span<const std::byte> bytes = file_.bytes(tensor);
      for (size_t i = 0; i < divisors.size(); ++i) divisors[i] *= load<float>(bytes.data() + i * sizeof(float));
    }
    for (const double d : divisors) {
      if (!std::isfinite(d) || d <= 0) fail("its rotary positions are divided by what is no positive number");
    }
    return std::all_of(divisors.begin(), divisors.end(), [](double d) { return d == 1; }) ? std::vector<double>()
                                                                                          : divisors;
  }

  int vocab_size() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (tensor.name == "token_embd.weight" && tensor.shape.size() == 2 && tensor.shape[0] <= INT32_MAX) {
        expect_equal("llama.vocab_size", static_cast<int>(tensor.shape[0]));
        return static_cast<int>(tensor.shape[0]);
      }
    }
    fail("has no tensor 'token_embd.weight' of two dimensions");
  }

  int size(const std::string& key, std::optional<int> if_missing = std::nullopt) const {
    const std::optional<int64_t> value = file_.integer(key);
    if (!value && if_missing) return *if_missing;
    if (!value) fail("key '" + key + "' is missing");
    if (*value < 0 || *value > INT32_MAX) fail(fmt::format("key '{}': {} is no size", key, *value));
    return static_cast<int>(*value);
  }
  double number(const std::string& key, std::optional<double> if_missing = std::nullopt) const {
    const std::optional<double> value = file_.number(key);
    if (!value && if_missing) return *if_missing;
    if (!value) fail("key '" + key + "' is missing");
    if (!std::isfinite(*value)) fail("key '" + key + "' is not finite");
    return *value;
  }
  void expect_equal(const std::string& key, int expected) const {
    const int found = size(key, expected);
    if (found != expected) fail(fmt::format("key '{}': expected {}, found {}", key, expected, found));
  }

  const GgufFile& file_;
  std::string what_;
};

}  // namespace

ImportSource open_gguf_source(const std::filesystem::path& path) {
  auto file = std::make_shared<GgufFile>(path);
  const GgufModel model(*file);
  ImportSource source;
  source.what = path.string();
  source.architecture = model.architecture();
  source.names = kGgufNames;
  if (model.has_tensor("blk.0.ffn_gate.0.weight")) {  // Mixtral files from before experts were stacked
    for (const char* matrix : {"gate", "up", "down"})
      source.names.in_layer["components." + std::string(matrix)] = {"ffn_" + std::string(matrix) + ".{}.weight"};
  }
  for (const GgufTensor& tensor : file->tensors())
    source.tensors[tensor.name] = {tensor.format, tensor.shape, file->bytes(tensor)};
  source.ignored = {kRopeTensor};
  source.eos_tokens = model.eos_tokens(source.architecture.trunk.vocab_size);
  source.chat_template = file->text("tokenizer.chat_template").value_or("");
  const std::string_view tokenizer = file->text("tokenizer.ggml.model").value_or("");
  if (tokenizer == "gpt2" || tokenizer == "llama") {  // BPE over bytes, SentencePiece's
    source.tokenizer_json = tokenizer_json_of_gguf(*file);
  } else {
    source.no_tokenizer = "its tokenizer is no BPE (key 'tokenizer.ggml.model')";
  }
  source.origin = {{"format", "GGUF"}, {"file", path.filename().string()}};
  for (const char* key : {"name", "organization", "license"}) {
    if (const auto text = file->text("general." + std::string(key))) source.origin[key] = *text;
  }
  source.maps = {&file->file()};
  source.open_files = {file};
  return source;
}

}  // namespace tessera
