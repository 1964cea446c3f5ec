#include "train/checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/temporary_folder.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormat = "tessera-checkpoint-1";
constexpr const char* kNeeded[] = {"model/config.json", "model/model.safetensors", "model/tokenizer.json",
                                   "optimizer.safetensors"};

std::string hash_of_file(const fs::path& path) { return hash_hex(MappedFile(path).bytes()); }

std::string hash_of_state(Json state) {
  state.erase("hash");
  return hash_hex(state.dump());
}

// Throws Error{kData} or a JSON exception for what is not as it was written.
void check_whole(const fs::path& checkpoint, const Json& state) {
  if (state.at("format") != kFormat) throw Error(ErrorCode::kData, "its format is " + state["format"].dump());
  // Before 2026-11-28 it had no hash of its own.
  if (state.contains("hash") && state["hash"] != hash_of_state(state))
    throw Error(ErrorCode::kData, "state.json is not the file that was written");
  const Json& files = state.at("files");
  for (const char* file : kNeeded) {
    if (!files.contains(file)) throw Error(ErrorCode::kData, std::string(file) + " is missing");
  }
  for (const auto& [file, hash] : files.items()) {
    if (hash != hash_of_file(checkpoint / file))
      throw Error(ErrorCode::kData, file + " is not the file that was written");
  }
}

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

ModelExtras extras_of(const ModelFolder& model) {
  ModelExtras extras;
  for (const char* key : {"eos_tokens", "source"}) {
    if (model.config.contains(key)) extras.about[key] = model.config[key];
  }
  for (const fs::path& file : {model.tokenizer(), model.chat_template()}) {
    if (fs::exists(file)) extras.files[file.filename().string()] = read_file(file);
  }
  return extras;
}

void save_model(const fs::path& folder, const Model& model, const ModelExtras& extras) {
  fs::create_directories(folder);
  Json config = {{"format", "tessera-1"}, {"model", to_json(model.architecture())}};
  config.update(extras.about);
  write_json_file(folder / "config.json", config);
  model.parameters().save(folder / "model.safetensors", model.architecture(), config_hash(config));
  for (const auto& [name, text] : extras.files) write_file_atomic(folder / name, text);
}

void save_checkpoint(const fs::path& run, int64_t step, const Model& model, const Optimizer& optimizer, Json state,
                     const ModelExtras& extras, int keep) {
  const std::string name = fmt::format("step-{:08}", step);
  const fs::path target = run / "checkpoints" / name;
  const TemporaryFolder temporary(run / "checkpoints" / (name + ".writing"));
  save_model(temporary.path / "model", model, extras);
  save_optimizer(temporary.path / "optimizer.safetensors", optimizer);
  state["format"] = kFormat;
  for (const auto& entry : fs::recursive_directory_iterator(temporary.path)) {
    if (entry.is_regular_file())
      state["files"][fs::relative(entry.path(), temporary.path).string()] = hash_of_file(entry.path());
  }
  state["hash"] = hash_of_state(state);
  write_json_file(temporary.path / "state.json", state);
  fs::remove_all(target);  // one that was broken, or a run that was started over
  publish_folder(temporary.path, target);
  const std::vector<fs::path> all = list_checkpoints(run);
  const auto end = std::upper_bound(all.begin(), all.end(), target);
  for (auto it = all.begin(); it != end; ++it) {
    if (end - it > keep) fs::remove_all(*it);
  }
  for (auto it = end; it != all.end(); ++it) {
    const fs::path aside = it->string() + ".broken";
    fs::remove_all(aside);
    fs::rename(*it, aside);
  }
}

void remove_unfinished_checkpoints(const fs::path& run) {
  std::error_code none_there;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", none_there)) {
    if (entry.path().extension() == ".writing") fs::remove_all(entry.path());
  }
}

std::optional<Checkpoint> newest_checkpoint(const fs::path& run) {
  const std::vector<fs::path> all = list_checkpoints(run);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    try {
      Checkpoint checkpoint{*it, read_json_file(*it / "state.json")};
      check_whole(*it, checkpoint.state);
      return checkpoint;
    } catch (const std::exception& e) {
      log_warn("checkpoint {} is broken and skipped: {}", it->string(), e.what());
    }
  }
  return std::nullopt;
}

}  // namespace tessera
