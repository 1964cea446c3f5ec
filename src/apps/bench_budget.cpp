#include "apps/bench_budget.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <numeric>

#include "apps/commands.h"
#include "apps/engine_arguments.h"
#include "apps/provenance.h"
#include "apps/random_weights.h"
#include "base/direct_file.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/temporary_folder.h"
#include "base/threads.h"
#include "core/tensor_names.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/scorer.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDecodeTokens = 48;  // of a turn, behind the window that is read

// One window of text with the route that the trained model took.
struct Window {
  std::vector<int32_t> tokens;
  Route route;
};

std::vector<Window> trained_routes(const BudgetBenchOptions& options, int count) {
  engine::EngineOptions engine_options;
  engine_options.num_threads = options.threads;
  engine::Engine engine(open_model(options.routes), engine_options);
  const Tokenizer tokenizer = load_tokenizer(engine.model());
  const std::vector<int32_t> all = tokenizer.encode(read_file(options.text));
  const size_t length = static_cast<size_t>(engine.context_length()) - 1;
  if (all.size() < length * static_cast<size_t>(count)) {
    throw Error(ErrorCode::kData,
                fmt::format("{}: {} windows of {} tokens are needed, it has {} tokens", options.text, count, length,
                            all.size()),
                "take a longer text or fewer turns");
  }
  engine::EngineScorer scorer(engine);
  std::vector<Window> windows;
  for (int w = 0; w < count; ++w) {
    const auto begin = all.begin() + static_cast<int64_t>(length) * w;
    std::vector<int32_t> tokens = engine::prompt_tokens(tokenizer, "");
    tokens.insert(tokens.end(), begin, begin + static_cast<int64_t>(length));
    std::vector<ScoredText> scored = scorer.score({&tokens, 1});
    tokens.pop_back();  // a score's route ends before the last token
    windows.push_back({std::move(tokens), std::move(scored[0].route)});
  }
  return windows;
}

int64_t component_bytes(const Architecture& a) {
  int64_t numbers = 0;
  for (const TensorSpec& spec : tensor_specs(a))
    numbers += spec.part == Part::kComponent ? num_elements(spec.shape) : 0;
  return numbers * 4;
}

int64_t all_bytes(const Architecture& a) {
  int64_t numbers = 0;
  for (const TensorSpec& spec : tensor_specs(a)) numbers += num_elements(spec.shape);
  return numbers * 4;
}

// The same hierarchy with all widths as many times as it takes; the heads keep their width.
Architecture scaled(const Architecture& small, int64_t bytes) {
  for (int times = 1;; ++times) {
    Architecture a = small;
    a.trunk.head_dim = head_dim(small.trunk);
    a.trunk.width *= times, a.trunk.num_heads *= times, a.trunk.num_kv_heads *= times, a.trunk.dense_width *= times;
    a.hierarchy.base_width *= times, a.hierarchy.unique_width *= times, a.hierarchy.always_on_width *= times;
    if (all_bytes(a) >= bytes) return a;
  }
}

// What a policy did over the turns that count, reading or decoding.
struct Total {
  double tokens = 0, seconds = 0;
  engine::ResidencyStatistics use;
  double tokens_per_s() const { return tokens / seconds; }
};

// A pass of tokens [begin, end) of a window; the components that it uses, in order: what Belady's policy is told.
struct Pass {
  const Window* window;
  int64_t begin, end;
  bool is_decode, counts;
  std::vector<int> uses;
};

std::vector<Pass> passes_of(const std::vector<Window>& windows, int num_components) {
  std::vector<Pass> passes;
  for (size_t w = 0; w < windows.size(); ++w) {
    const int64_t end = windows[w].route.num_tokens, read = std::max<int64_t>(end / 2, end - kDecodeTokens);
    for (int64_t at = 0; at < end;) {
      const int64_t step = at < read ? std::min(engine::kBudgetPassTokens, read - at) : 1;
      Pass pass = {&windows[w], at, at + step, at >= read, w > 0, {}};
      const Route& route = windows[w].route;
      const int64_t k = route.num_active;
      for (int64_t i = at * route.num_layers * k; i < (at + step) * route.num_layers * k; ++i) {
        const int layer = static_cast<int>(i / k % route.num_layers);
        pass.uses.push_back(layer * num_components + route.components_TLK[static_cast<size_t>(i)]);
      }
      std::sort(pass.uses.begin(), pass.uses.end());
      pass.uses.erase(std::unique(pass.uses.begin(), pass.uses.end()), pass.uses.end());
      passes.push_back(std::move(pass));
      at += step;
    }
  }
  return passes;
}

// Runs the passes of one window, and adds to the totals [reading, decoding] when they count.
void run_window(engine::Engine& engine, std::span<const Pass> passes, Total totals[2]) {
  engine::Sequence sequence = engine.new_sequence();
  sequence.replay = &passes[0].window->route;
  std::vector<float> logits(static_cast<size_t>(engine.vocab_size()));
  for (const Pass& pass : passes) {
    const engine::ResidencyStatistics before = engine.residency()->statistics();
    const double started = now_s();
    const engine::Segment segment = {
        &sequence,
        std::span(pass.window->tokens)
            .subspan(static_cast<size_t>(pass.begin), static_cast<size_t>(pass.end - pass.begin)),
        engine::Outputs::kLast};
    engine.logits(engine.forward({&segment, 1}), logits.data());
    if (!pass.counts) continue;
    const engine::ResidencyStatistics after = engine.residency()->statistics();
    Total& total = totals[pass.is_decode];
    total.tokens += static_cast<double>(pass.end - pass.begin);
    total.seconds += now_s() - started;
    total.use.uses += after.uses - before.uses;
    total.use.ready += after.ready - before.ready;
    total.use.reads += after.reads - before.reads;
    total.use.reads_ahead += after.reads_ahead - before.reads_ahead;
    total.use.bytes_read += after.bytes_read - before.bytes_read;
  }
}

// Reads [reading, decoding] of the passes that count, by a policy that knows the future.
std::array<int64_t, 2> belady_reads(const std::vector<Pass>& passes, int64_t num_slots) {
  struct Use {
    int component;
    size_t next;
    const Pass* pass;
  };
  std::vector<Use> uses;
  for (const Pass& pass : passes) {
    for (int component : pass.uses) uses.push_back({component, SIZE_MAX, &pass});
  }
  std::map<int, size_t> next;
  for (size_t i = uses.size(); i-- > 0;) {
    const auto it = next.find(uses[i].component);
    if (it != next.end()) uses[i].next = it->second;
    next[uses[i].component] = i;
  }
  std::map<int, size_t> held;  // component -> its next use
  std::array<int64_t, 2> reads = {0, 0};
  for (const Use& use : uses) {
    if (!held.contains(use.component)) {
      reads[use.pass->is_decode] += use.pass->counts;
      if (static_cast<int64_t>(held.size()) == num_slots) {
        held.erase(std::max_element(held.begin(), held.end(),
                                    [](const auto& a, const auto& b) { return a.second < b.second; }));
      }
    }
    held[use.component] = use.next;
  }
  return reads;
}

// Components read one after another, past the page cache: bytes a second.
double disk_bytes_per_s(const ModelFolder& model, int64_t slot_bytes) {
  const DirectFile file(model.weights->path());
  if (!file.is_direct()) warn_once("this file system has no direct I/O: the page cache helps");
  const engine::PageBuffer buffer(slot_bytes);
  const std::vector<engine::FileRange> ranges = engine::component_ranges(model);
  Rng rng(static_cast<uint64_t>(now_s() * 1e6));
  int64_t bytes = 0;
  const double started = now_s();
  for (int i = 0; i < 24; ++i) {
    const engine::FileRange& range = ranges[rng.below(ranges.size())];
    file.read(range.begin, range.end - range.begin, buffer.data());
    bytes += range.end - range.begin;
  }
  return static_cast<double>(bytes) / (now_s() - started);
}

Json figures(const Total& ours, const Total& lru, double belady_hit_rate, double ceiling) {
  return {
      {"tokens_per_s", ours.tokens_per_s()},
      {"bytes_read", ours.use.bytes_read},
      {"hit_rate", ours.use.hit_rate()},
      {"ready_rate", static_cast<double>(ours.use.ready) / static_cast<double>(std::max<int64_t>(1, ours.use.uses))},
      {"lru_tokens_per_s", lru.tokens_per_s()},
      {"lru_bytes_read", lru.use.bytes_read},
      {"lru_hit_rate", lru.use.hit_rate()},
      {"belady_hit_rate", belady_hit_rate},
      {"ceiling_tokens_per_s", ceiling}};
}

}  // namespace

int run_budget_bench(const BudgetBenchOptions& options) {
  const std::vector<Window> windows = trained_routes(options, options.turns + 1);
  const Architecture a = scaled(open_model(options.routes).architecture, options.model_bytes);
  if (num_component_layers(a) == 0) throw Error(ErrorCode::kData, options.routes + " has no components");
  const TemporaryFolder folder(fs::temp_directory_path() / ("tessera-budget-" + std::to_string(::getpid())));
  write_random_model(folder.path, a);
  const std::vector<Pass> passes = passes_of(windows, num_components(a.hierarchy));
  const int threads = options.threads > 0 ? options.threads : num_cpus();
  const engine::MemoryPlan whole = engine::plan_memory(open_model(folder.path), {}, KvType::kF32, threads, 0);
  std::cout << fmt::format("{} of random weights, {} of them in {} components; {} threads\n",
                           human_bytes(static_cast<double>(all_bytes(a))),
                           human_bytes(static_cast<double>(component_bytes(a))), whole.num_components, threads);
  Json json = Json::object();
  double compute_s_per_token[2] = {0, 0};
  std::vector<double> disk;
  for (const int percent : {100, 50, 25}) {
    std::vector<std::unique_ptr<engine::Engine>> engines;
    engine::EngineOptions engine_options;
    engine_options.num_threads = threads;
    engine_options.plan = whole;
    engine_options.plan->num_slots = std::max<int64_t>(1, whole.num_components * percent / 100);
    for (const engine::Paging paging : {engine::Paging::kByRoute, engine::Paging::kPlainLru}) {
      engine_options.paging = paging;
      engines.push_back(std::make_unique<engine::Engine>(open_model(folder.path), engine_options));
    }
    Total totals[2][2];  // by route, LRU; reading, decoding
    size_t num_windows = 0;
    for (size_t begin = 0; begin < passes.size();) {
      size_t end = begin;
      while (end < passes.size() && passes[end].window == passes[begin].window) ++end;
      disk.push_back(disk_bytes_per_s(open_model(folder.path), whole.slot_bytes));
      // A B, then B A: who comes second may find blocks in a cache below this machine's disk.
      const size_t first = num_windows++ % 2;
      for (const size_t e : {first, 1 - first})
        run_window(*engines[e], std::span(passes).subspan(begin, end - begin), totals[e]);
      begin = end;
    }
    const double bandwidth = std::accumulate(disk.begin(), disk.end(), 0.0) / static_cast<double>(disk.size());
    const std::array<int64_t, 2> reads = belady_reads(passes, engine_options.plan->num_slots);
    Json entry;
    for (const int decode : {0, 1}) {
      const Total &ours = totals[0][decode], &lru = totals[1][decode];
      if (percent == 100) compute_s_per_token[decode] = ours.seconds / ours.tokens;
      const double read_s = static_cast<double>(reads[static_cast<size_t>(decode)] * whole.slot_bytes) / bandwidth;
      const double ceiling = ours.tokens / std::max(read_s, compute_s_per_token[decode] * ours.tokens);
      const double belady =
          1 - static_cast<double>(reads[static_cast<size_t>(decode)]) / static_cast<double>(ours.use.uses);
      std::cout << fmt::format(
          "{:>3} % in memory, {:<8}{:>8.2f} tokens/s (LRU {:.2f}: {:.2f} times; ceiling {:.2f}: {:.0f} %), hits {:.1f} "
          "% "
          "(LRU {:.1f}, Belady {:.1f})\n",
          percent, decode ? "decoding" : "reading", ours.tokens_per_s(), lru.tokens_per_s(),
          ours.tokens_per_s() / lru.tokens_per_s(), ceiling, 100 * ours.tokens_per_s() / ceiling,
          100 * ours.use.hit_rate(), 100 * lru.use.hit_rate(), 100 * belady);
      const Json these = figures(ours, lru, belady, ceiling);
      if (decode) {
        entry["decode"] = these;
      } else {
        entry = these;
      }
    }
    json[std::to_string(percent)] = entry;
    json["disk_bytes_per_s"] = bandwidth;
  }
  json["model_bytes"] = all_bytes(a);
  json["component_bytes"] = component_bytes(a);
  json["threads"] = threads;
  json["cpu"] = machine_name();
  json["commit"] = commit();
  if (options.json) std::cout << json.dump() << "\n";
  return 0;
}

void add_bench_budget_command(CLI::App& app) {
  auto options = std::make_shared<BudgetBenchOptions>();
  CLI::App* command = app.add_subcommand("bench-budget", "./tessera bench engine --budget")->group("");
  command->add_option("--routes", options->routes, "a trained model or run, whose routes are replayed")->required();
  command->add_option("--text", options->text, "a file of real text")->required();
  command->add_option("--size", options->model_bytes, "of the model of random weights, at least")
      ->transform(size_value());
  command->add_option("--turns", options->turns, "that count")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--threads", options->threads, "0: all CPUs")->check(CLI::Range(0, kMostThreads));
  command->add_flag("--json", options->json, "last line: one JSON object");
  command->footer("Example: ./tessera bench engine --budget --routes runs/demo --text README.md");
  command->callback([options] { run_budget_bench(*options); });
}

}  // namespace tessera
