// tessera quantize: a model's large matrices in 16 (bf16), 8 or 4 bits.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>

#include "apps/commands.h"
#include "apps/quantised_bits.h"
#include "base/error.h"
#include "base/files.h"
#include "base/float_bits.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/config.h"
#include "core/model_file.h"
#include "core/tensor_names.h"
#include "kernels/matvec.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

WeightType weight_type(const std::string& file, const TensorInfo& tensor) {
  if (tensor.dtype == "F32") return WeightType::kF32;
  if (tensor.dtype == "BF16") return WeightType::kBF16;
  if (tensor.dtype == "F16") return WeightType::kF16;
  throw Error(ErrorCode::kData,
              file + ": tensor '" + tensor.name + "' is " + tensor.dtype + ", expected F32, BF16 or F16",
              "quantize the model that this one was made of");
}

std::vector<std::byte> quantised(const WeightMatrix& w, int bits) {
  if (bits == 16) {
    std::vector<float> row(static_cast<size_t>(w.inputs));
    std::vector<uint16_t> halves;
    for (int64_t o = 0; o < w.outputs; ++o) {
      copy_weight_row(w, o, row.data());
      std::transform(row.begin(), row.end(), std::back_inserter(halves), bf16_from_float);
    }
    const std::span<const std::byte> bytes = std::as_bytes(std::span(halves));
    return {bytes.begin(), bytes.end()};
  }
  std::vector<std::byte> out(static_cast<size_t>(quantised_bytes(w.outputs, w.inputs, bits)));
  const int64_t strip_bytes = quantised_bytes(kBlockOutputs, w.inputs, bits);
  parallel_for(num_blocks(w.outputs, kBlockOutputs), [&](int64_t strip) {
    const int64_t first = strip * kBlockOutputs, count = std::min<int64_t>(kBlockOutputs, w.outputs - first);
    std::vector<float> rows(static_cast<size_t>(count * w.inputs));
    for (int64_t o = 0; o < count; ++o) copy_weight_row(w, first + o, &rows[static_cast<size_t>(o * w.inputs)]);
    quantise_matrix(rows.data(), count, w.inputs, bits, out.data() + strip * strip_bytes);
  });
  return out;
}

void run_quantize(const std::string& from, const fs::path& out, int bits, bool json) {
  const ModelFolder model = open_model(from);
  if (fs::exists(out)) throw Error(ErrorCode::kFile, out.string() + " is there already", "name a new folder");
  const std::string file = model.weights->path().string();
  std::vector<TensorToWrite> list;
  uint64_t before = 0, after = 0;
  const std::vector<TensorSpec> specs = tensor_specs(model.architecture);
  for (const TensorSpec& spec : specs) {
    const TensorInfo& tensor = model.weights->at(spec.name);
    if (tensor.dtype != "U8") check_finite(*model.weights, tensor);  // in a group, it would spoil or hide the others
    TensorToWrite entry = {spec.name, tensor.dtype, spec.shape, model.weights->bytes(tensor), spec.page_start};
    if (const int b = quantised_bits(spec, bits); b > 0) {
      weight_type(file, tensor);
      const int64_t bytes = b == 16 ? 2 * num_elements(spec.shape) : quantised_bytes(spec.shape[0], spec.shape[1], b);
      entry.dtype = b == 16 ? "BF16" : "U8";
      if (b != 16) entry.shape = {bytes};
      entry.bytes = {static_cast<const std::byte*>(nullptr), static_cast<size_t>(bytes)};
    }
    before += tensor.end - tensor.begin;
    after += static_cast<uint64_t>(entry.bytes.size());
    list.push_back(std::move(entry));
  }
  Json config = model.config;
  set_bits(config, bits);
  const fs::path beside = out.string() + ".writing";
  fs::remove_all(beside);
  fs::create_directories(beside);
  try {
    SafetensorsWriter writer(beside / "model.safetensors", list,
                             {{"format", "pt"}, {kConfigHashKey, config_hash(config)}});
    Progress progress("quantize");
    for (size_t i = 0; i < specs.size(); ++i) {
      const TensorInfo& tensor = model.weights->at(specs[i].name);
      if (const int b = quantised_bits(specs[i], bits); b > 0) {
        writer.write(quantised(
            {model.weights->bytes(tensor).data(), weight_type(file, tensor), specs[i].shape[0], specs[i].shape[1]}, b));
      } else if (!list[i].bytes.empty()) {
        writer.write(list[i].bytes);
      }
      progress.update(static_cast<double>(i + 1), static_cast<double>(specs.size()));
    }
    writer.close();
    progress.finish();
    model.weights->file().check_intact();
    write_json_file(beside / "config.json", config);
    for (const char* name : {"tokenizer.json", "chat_template.jinja"}) {
      if (fs::exists(model.path / name)) fs::copy_file(model.path / name, beside / name);
    }
    publish_folder(beside, out);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(beside, ignored);
    throw;
  }
  std::cout << fmt::format("{}: {} -> {} ({} bits)\n", out.string(), human_bytes(static_cast<double>(before)),
                           human_bytes(static_cast<double>(after)), bits);
  if (json)
    std::cout << Json{{"path", out.string()}, {"bytes_before", before}, {"bytes", after}, {"bits", bits}}.dump()
              << "\n";
}

}  // namespace

void add_quantize_command(CLI::App& app) {
  struct Arguments {
    std::string model, out;
    int bits = 8;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("quantize", "A model's matrices in 16 (bf16), 8 or 4 bits");
  command->add_option("MODEL_OR_RUN", args->model, "a model folder or a run")->required();
  command->add_option("OUT", args->out, "the model folder to write, not there yet (MODEL-q8, -q4, -bf16)");
  command->add_option("--bits", args->bits, "16, 8 or 4")->check(CLI::IsMember({16, 8, 4}))->capture_default_str();
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer("Example: ./tessera quantize runs/demo models/demo-8 --bits 8");
  command->callback([args] {
    fs::path out = args->out;
    if (out.empty()) {
      const fs::path model = fs::weakly_canonical(args->model);
      if (model.filename() == "model" || model.parent_path().filename() == "checkpoints")
        throw Error(ErrorCode::kUsage, args->model + " is part of a run", "name the folder to write: OUT");
      out = model.string() + (args->bits == 16 ? "-bf16" : fmt::format("-q{}", args->bits));
    }
    run_quantize(args->model, out, args->bits, args->json);
  });
}

}  // namespace tessera
