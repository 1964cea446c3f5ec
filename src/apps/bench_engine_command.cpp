// Our side of bench/engine.py: an engine that runs what it is told to, timed.
#include <atomic>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "apps/commands.h"
#include "apps/quantised_bits.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/rng.h"
#include "core/config.h"
#include "core/tensor_names.h"
#include "engine/engine.h"
#include "kernels/machine_limits.h"
#include "kernels/matvec.h"

namespace tessera {
namespace {

// Texts of made-up tokens that run in step.
class Texts {
 public:
  Texts(engine::Engine& engine, int count) : engine_(engine), logits_(static_cast<size_t>(count) * vocab()) {
    for (int i = 0; i < count; ++i) sequences_.push_back(engine.new_sequence());
  }

  // `num_tokens` more of each text, in one pass, and the logits of the last ones.
  void run(int num_tokens) {
    std::vector<std::vector<int32_t>> tokens(sequences_.size());
    std::vector<engine::Segment> segments;
    for (size_t s = 0; s < sequences_.size(); ++s) {
      for (int i = 0; i < num_tokens; ++i) {
        state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
        tokens[s].push_back(static_cast<int32_t>((state_ >> 33) % vocab()));
      }
      segments.push_back({&sequences_[s], tokens[s], engine::Outputs::kLast});
    }
    engine_.logits(engine_.forward(segments), logits_.data());
  }

 private:
  size_t vocab() const { return static_cast<size_t>(engine_.vocab_size()); }
  engine::Engine& engine_;
  std::vector<engine::Sequence> sequences_;
  std::vector<float> logits_;
  uint64_t state_ = 1;
};

// Best of some tries, in units a second over all threads: body(thread) gives the units it did.
template <class Body>
double best_rate(engine::ThreadPool& pool, const Body& body) {
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::vector<double> units(static_cast<size_t>(pool.size()));
    const double begin = now_s();
    pool.run(pool.size(), [&](int64_t i, int) { units[static_cast<size_t>(i)] = body(static_cast<size_t>(i)); });
    double sum = 0;
    for (const double u : units) sum += u;
    best = std::max(best, sum / (now_s() - begin));
  }
  return best;
}

Json machine_limits(size_t buffer_bytes, int threads) {
  engine::ThreadPool pool(threads);
  const std::vector<uint64_t> buffer(buffer_bytes / 8, 1);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(buffer));
  const size_t share = bytes.size() / static_cast<size_t>(threads) / 4096 * 4096;
  std::atomic<uint64_t> sink = 0;
  const double bandwidth = best_rate(pool, [&](size_t i) {
    sink += read_bytes(bytes.subspan(i * share, share));
    return static_cast<double>(share);
  });
  constexpr int64_t kRounds = 1 << 24;
  const auto peak = [&](Arithmetic arithmetic) {
    return best_rate(pool, [&](size_t) { return static_cast<double>(multiply_add_rounds(arithmetic, kRounds)); });
  };
  return {{"bytes_per_s", bandwidth},
          {"int8_macs_per_s", peak(Arithmetic::kInt8)},
          {"f32_macs_per_s", peak(Arithmetic::kF32)}};
}

// Random weights beside the folder's config.json, at the bits that it says: matrices quantised, routers, as always,
// not.
void write_random(const std::filesystem::path& folder) {
  const Json config = read_json_file(folder / "config.json");
  const int bits = config.at("quantised").at("bits").get<int>();
  const std::vector<TensorSpec> specs = tensor_specs(architecture_from_json(config.at("model")));
  std::vector<TensorToWrite> list;
  for (const TensorSpec& spec : specs) {
    const bool is_quantised = quantised_bits(spec, bits) > 0;
    const int64_t bytes = is_quantised ? quantised_bytes(spec.shape[0], spec.shape[1], quantised_bits(spec, bits))
                                       : num_elements(spec.shape) * 4;
    list.push_back({spec.name,
                    is_quantised ? "U8" : "F32",
                    is_quantised ? std::vector<int64_t>{bytes} : spec.shape,
                    {static_cast<const std::byte*>(nullptr), static_cast<size_t>(bytes)},
                    spec.page_start});
  }
  SafetensorsWriter writer(folder / "model.safetensors", list, {{kConfigHashKey, config_hash(config)}});
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[i];
    Rng rng(1, i);
    if (!spec.buffer && spec.shape.size() == 1) {
      const std::vector<float> ones(static_cast<size_t>(spec.shape[0]), 1.0f);
      writer.write(std::as_bytes(std::span(ones)));
      continue;
    }
    // Rows of a quantised matrix repeat after 64: what they cost doesn't depend on it.
    const double scale = 1.0 / std::sqrt(static_cast<double>(spec.shape.back()));
    const int64_t inputs = spec.shape.back(), outputs = spec.shape.size() == 2 ? spec.shape[0] : 1;
    const bool is_quantised = list[i].dtype == "U8";
    const int64_t strip = is_quantised ? std::min<int64_t>(outputs, 64) : outputs;
    std::vector<float> values(static_cast<size_t>(strip * inputs));
    for (float& v : values) v = spec.buffer ? 0.0f : static_cast<float>(scale * rng.normal());
    if (!is_quantised) {
      writer.write(std::as_bytes(std::span(values)));
      continue;
    }
    const int b = quantised_bits(spec, bits);
    std::vector<std::byte> packed(static_cast<size_t>(quantised_bytes(strip, inputs, b)));
    quantise_matrix(values.data(), strip, inputs, b, packed.data());
    std::vector<std::byte> bytes(list[i].bytes.size());
    for (size_t at = 0; at < bytes.size(); at += packed.size())
      std::copy_n(packed.begin(), std::min(packed.size(), bytes.size() - at), &bytes[at]);
    writer.write(bytes);
  }
  writer.close();
}

// "run TEXTS PROMPT TOKENS": so many texts of PROMPT tokens, then TOKENS more each, one a pass. "limits": the
// machine's.
void serve(const std::string& path, int threads, const std::string& cache) {
  engine::EngineOptions options;
  options.num_threads = threads;
  options.kv_type = cache == "f16" ? KvType::kF16 : KvType::kF32;
  ModelFolder folder = open_model(path);
  const size_t bytes = std::filesystem::file_size(folder.weights->path());
  engine::Engine engine(std::move(folder), options);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    int count = 0, prompt = 0, steps = 0;
    words >> command >> count >> prompt >> steps;
    if (command == "limits") {
      std::cout << machine_limits(bytes, engine.num_threads()).dump() << std::endl;
      continue;
    }
    Texts texts(engine, count);
    const double begin = now_s();
    if (prompt > 0) texts.run(prompt);
    const double middle = now_s();
    for (int i = 0; i < steps; ++i) texts.run(1);
    std::cout << Json{{"prefill_seconds", middle - begin}, {"decode_seconds", now_s() - middle}}.dump() << std::endl;
  }
}

}  // namespace

void add_bench_engine_command(CLI::App& app) {
  struct Arguments {
    std::string model;
    int threads = 2;
    std::string cache = "f16";  // as the peer's
    bool write_random = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("bench-engine-worker", "Our side of ./tessera bench engine")->group("");
  command->add_option("MODEL", args->model)->required();
  command->add_option("--threads", args->threads)->check(CLI::Range(1, 1024));
  command->add_option("--cache", args->cache)->check(CLI::IsMember({"f32", "f16"}));
  command->add_flag("--write-random", args->write_random, "write random weights beside MODEL's config.json and stop");
  command->callback(
      [args] { args->write_random ? write_random(args->model) : serve(args->model, args->threads, args->cache); });
}

}  // namespace tessera
