// Our side of bench/engine.py: an engine that runs what it is told to, timed.
#include <atomic>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "apps/commands.h"
#include "apps/random_weights.h"
#include "base/log.h"
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
  command->callback([args] {
    args->write_random ? write_random_weights(args->model) : serve(args->model, args->threads, args->cache);
  });
}

}  // namespace tessera
