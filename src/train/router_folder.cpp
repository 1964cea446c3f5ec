#include "train/router_folder.h"

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "core/config.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormat = "tessera-router-1";

bool is_of_router(const std::string& name) { return name.starts_with("domain_router."); }

}  // namespace

void save_router(const fs::path& folder, const Architecture& a, const Parameters& parameters,
                 const Tokenizer& tokenizer, const Json& report) {
  fs::create_directories(folder);
  std::vector<at::Tensor> values;
  std::vector<TensorToWrite> tensors;
  for (const ParameterSpec& spec : parameters.specs()) {
    if (!is_of_router(spec.name)) continue;
    values.push_back(parameters[spec.name].detach().to(at::kCPU, at::kFloat).contiguous());
    tensors.push_back({spec.name, "F32", spec.shape, tensor_bytes(values.back())});
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  write_json_file(folder / "config.json", {{"format", kFormat},
                                           {"domain_router", to_json(a)["domain_router"]},
                                           {"domains", routed_names(a.hierarchy)},
                                           {"vocab_size", a.trunk.vocab_size},
                                           {"tokenizer_hash", hash_hex(tokenizer.json())},
                                           {"report", report}});
}

DomainRouter router_of_folder(const fs::path& folder, const Architecture& a, const std::string& tokenizer_json) {
  const fs::path file = folder / "config.json";
  if (!fs::exists(file)) {
    throw Error(ErrorCode::kFile, "config key 'router.init': no router at " + folder.string(),
                "./tessera distil CONFIG writes one");
  }
  const Json config = read_json_file(file);
  for (const char* key : {"format", "domain_router", "domains", "vocab_size", "tokenizer_hash"}) {
    if (!config.is_object() || !config.contains(key) || (std::string(key) == "format" && config[key] != kFormat)) {
      throw Error(ErrorCode::kData, file.string() + ": not a router that `distil` wrote (key '" + key + "')");
    }
  }
  const auto must_equal = [&](const char* what, const Json& found, const Json& expected) {
    if (found == expected) return;
    throw Error(ErrorCode::kConfig,
                fmt::format("config key 'router.init': {} has the {} {}, the run {}", folder.string(), what,
                            found.dump(), expected.dump()),
                "distil a router with this config and data");
  };
  must_equal("domains", config["domains"], routed_names(a.hierarchy));
  const Json mine = to_json(a)["domain_router"];
  const Json defaults = to_json(Architecture{})["domain_router"];  // of keys that came later than the folder
  for (const char* key : {"kind", "width", "num_layers", "num_heads", "own_embedding", "patch_tokens"})
    must_equal(key, config["domain_router"].value(key, defaults[key]), mine[key]);
  must_equal("vocabulary of", config["vocab_size"], a.trunk.vocab_size);
  must_equal("tokenizer", config["tokenizer_hash"], hash_hex(tokenizer_json));
  Json whole = to_json(a);
  whole["domain_router"] = config["domain_router"];
  return architecture_from_json(whole).domain_router;
}

void load_router(const fs::path& folder, const Parameters& parameters) {
  const SafetensorsFile file(folder / "model.safetensors");
  const at::NoGradGuard no_grad;
  for (const ParameterSpec& spec : parameters.specs()) {
    if (!is_of_router(spec.name)) continue;
    const TensorInfo& info = file.at(spec.name);
    if (info.shape != spec.shape) {
      throw Error(ErrorCode::kData,
                  file.path().string() + ": tensor '" + spec.name + "' has not the shape that its config.json says");
    }
    check_finite(file, info);
    at::Tensor parameter = parameters[spec.name];
    parameter.copy_(tensor_from_file(file, info));
    parameter.set_requires_grad(false);
  }
}

}  // namespace tessera
