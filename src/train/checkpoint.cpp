#include "train/checkpoint.h"

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/temporary_folder.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kHashed[] = {"model/config.json", "model/model.safetensors", "model/tokenizer.json",
                                   "optimizer.safetensors"};

std::string hash_of_file(const fs::path& path) { return hash_hex(MappedFile(path).bytes()); }

void save_optimizer(const fs::path& file, const Optimizer& optimizer) {
  std::vector<at::Tensor> values;
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, tensor] : optimizer.state()) {
    values.push_back(tensor.to(at::kCPU).contiguous());
    tensors.push_back(
        {name, dtype_name(values.back().scalar_type()), values.back().sizes().vec(), tensor_bytes(values.back())});
  }
  write_safetensors(file, tensors, {});
}

}  // namespace

void save_model(const fs::path& folder, const Model& model, const Json& about, const std::string& tokenizer_json) {
  fs::create_directories(folder);
  Json config = {{"format", "tessera-1"}, {"model", to_json(model.architecture())}};
  config.update(about);
  write_json_file(folder / "config.json", config);
  model.parameters().save(folder / "model.safetensors", model.architecture(), config_hash(config));
  write_file_atomic(folder / "tokenizer.json", tokenizer_json);
}

void save_checkpoint(const fs::path& run, int64_t step, const Model& model, const Optimizer& optimizer, Json state,
                     const Json& about, const std::string& tokenizer_json, int keep) {
  const std::string name = fmt::format("step-{:08}", step);
  const fs::path target = run / "checkpoints" / name;
  const TemporaryFolder temporary(run / "checkpoints" / (name + ".writing"));
  save_model(temporary.path / "model", model, about, tokenizer_json);
  save_optimizer(temporary.path / "optimizer.safetensors", optimizer);
  state["files"] = Json::object();
  for (const char* file : kHashed) state["files"][file] = hash_of_file(temporary.path / file);
  write_json_file(temporary.path / "state.json", state);
  fs::remove_all(target);  // one that was broken, or a run that was started over
  publish_folder(temporary.path, target);
  std::vector<fs::path> all = list_checkpoints(run);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) {
    if (all[i] != target) fs::remove_all(all[i]);
  }
}

std::optional<Checkpoint> newest_checkpoint(const fs::path& run) {
  const std::vector<fs::path> all = list_checkpoints(run);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    try {
      Checkpoint checkpoint{*it, read_json_file(*it / "state.json")};
      for (const char* file : kHashed) {
        if (!checkpoint.state.contains("files") ||
            checkpoint.state["files"].value(file, "") != hash_of_file(*it / file)) {
          throw Error(ErrorCode::kData, std::string(file) + " is not the file that was written");
        }
      }
      return checkpoint;
    } catch (const Error& e) {
      log_warn("checkpoint {} is broken and skipped: {}", it->string(), e.what());
    }
  }
  return std::nullopt;
}

}  // namespace tessera
