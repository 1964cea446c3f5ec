// tessera bench route: the time of progressive routing (level 1 by chunk; level 2, a narrow planner or heads on the
// trunk's first layers, of active domains alone) against one monolithic router (one transformer that scores all
// components of all layers for every token), on the engine, in turns: the part of forward passes that is routing.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "apps/commands.h"
#include "apps/config_arguments.h"
#include "apps/provenance.h"
#include "apps/quantised_bits.h"
#include "apps/random_weights.h"
#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/temporary_folder.h"
#include "base/threads.h"
#include "core/tensor_names.h"
#include "core/tokenizer.h"
#include "data/document.h"
#include "data/sample.h"
#include "engine/engine.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

struct Arguments {
  std::string source = "configs/demo.json";
  std::vector<std::string> overrides;
  int monolithic_width = 0;  // 0: the trunk's width
  int monolithic_layers = 1;
  std::vector<int> components = {32, 64, 128, 256};
  int repeats = 15, threads = 0;
  std::string data;
  bool json = false;
};

// The same routers with N components a layer: half of them (and what does not divide) general, the rest evenly over
// the routed domains.
Architecture with_components(const Architecture& architecture, int num_components) {
  Architecture a = architecture;
  const int routed = static_cast<int>(routed_domains(a.hierarchy).size());
  const bool has_general = static_cast<int>(a.hierarchy.domains.size()) > routed;
  const int own = (has_general ? num_components / 2 : num_components) / routed;
  int general = num_components - own * routed;  // of the first general domain; others get one each
  for (Domain& d : a.hierarchy.domains) general -= d.always;
  if (own < 1 || (has_general ? general < 0 : general != 0)) {
    throw Error(
        ErrorCode::kUsage,
        fmt::format("--components: {} don't share out over {} domains", num_components, a.hierarchy.domains.size()),
        "give every domain as many, and at least one");
  }
  for (Domain& d : a.hierarchy.domains) {
    d.num_components = d.always ? 1 + std::exchange(general, 0) : own;
    d.components.clear();
  }
  a.hierarchy.base.clear();
  return a;
}

// One router for everything: no domains, no level 1, a planner of this size; of no layers: heads on the trunk.
Architecture monolithic(const Architecture& architecture, int width, int num_layers) {
  Architecture a = architecture;
  a.hierarchy.domains = {{"all", num_components(a.hierarchy), false, {}}};
  a.domain_router = {};
  a.component_router = {};
  if (num_layers == 0) {
    a.component_router.kind = "trunk";
    return a;
  }
  a.component_router.width = width;
  a.component_router.num_layers = num_layers;
  a.component_router.num_heads = std::max(1, width / 32);
  while (width % (2 * a.component_router.num_heads) != 0) --a.component_router.num_heads;
  return a;
}

// What routing reads of a model; all else is as small as can be.
Architecture routers_only(Architecture a) {
  a.trunk.vocab_size = std::min(a.trunk.vocab_size, 4096);
  a.trunk.previous_token = false;
  a.trunk.context_length = 1 << 16;
  a.trunk.num_heads = a.trunk.num_kv_heads = 1;
  a.trunk.head_dim = 2;
  a.trunk.dense_width = std::min(a.trunk.dense_width, 1);
  a.hierarchy.num_banks = a.hierarchy.base_width = a.hierarchy.always_on_width = 0;
  a.hierarchy.base.clear();
  a.hierarchy.unique_width = 1;
  return a;
}

using TokenLists = std::vector<std::vector<int32_t>>;  // tokens
constexpr int kLongest = 4096;                         // tokens of a prefill

// The first documents of a file that are long enough, as many of each domain, the domains in turns.
TokenLists read_texts(const std::string& data, const ModelFolder& model) {
  constexpr size_t kTextsADomain = 8;
  const Tokenizer tokenizer = load_tokenizer(model);
  std::map<std::string, TokenLists> by_domain;
  read_documents(data, [&](Document&& d) {
    TokenLists& texts = by_domain[d.domain];
    if (texts.size() == kTextsADomain) return;
    std::vector<int32_t> tokens = tokenizer.encode(cut_text(d.text, 16 * kLongest));
    if (tokens.size() >= kLongest) texts.push_back(std::move(tokens));
  });
  if (by_domain.empty()) throw Error(ErrorCode::kData, data + " has no documents");
  size_t fewest = kTextsADomain;
  for (const auto& [domain, texts] : by_domain) {
    fewest = std::min(fewest, texts.size());
    if (texts.empty())
      throw Error(ErrorCode::kData, fmt::format("{}: no document of \"{}\" has {} tokens", data, domain, kLongest),
                  "join shorter ones");
  }
  TokenLists found;
  for (size_t i = 0; i < fewest; ++i) {
    for (const auto& [domain, texts] : by_domain) found.push_back(texts[i]);
  }
  return found;
}

TokenLists random_texts(int vocab_size) {
  Rng rng(5);
  TokenLists texts(1);
  while (texts[0].size() < kLongest)
    texts[0].push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab_size))));
  return texts;
}

// A model that texts run through, another one each turn.
class Runner {
 public:
  Runner(ModelFolder model, int threads, const TokenLists* texts = nullptr)
      : texts_(texts ? *texts : random_texts(model.architecture.trunk.vocab_size)) {
    engine::EngineOptions options;
    options.num_threads = threads;
    model.architecture.trunk.context_length = std::max(model.architecture.trunk.context_length, kLongest);
    engine_ = std::make_unique<engine::Engine>(std::move(model), options);
  }
  static Runner random(const Architecture& a, int bits, int threads, const TokenLists* texts = nullptr) {
    const TemporaryFolder folder(fs::temp_directory_path() / ("tessera-route-" + std::to_string(::getpid())));
    write_random_model(folder.path, a, bits);
    return {open_model(folder.path), threads, texts};  // stays mapped when the folder goes
  }
  struct Times {
    double routing_ms, forward_ms;  // routing is part of forward
  };
  Times prefill(int turn, int num_tokens) {
    engine::Sequence sequence = engine_->new_sequence();
    return run(sequence, text(turn).first(static_cast<size_t>(num_tokens)));
  }
  // A token, behind the first 512 of a text.
  Times decode(int turn, int num_tokens) {
    engine::Sequence sequence = engine_->new_sequence();
    run(sequence, text(turn).first(512));
    Times times = {0, 0};
    for (int i = 0; i < num_tokens; ++i) {
      const Times token = run(sequence, text(turn).subspan(512 + static_cast<size_t>(i), 1));
      times.routing_ms += token.routing_ms / num_tokens;
      times.forward_ms += token.forward_ms / num_tokens;
    }
    return times;
  }

 private:
  std::span<const int32_t> text(int turn) const { return texts_[static_cast<size_t>(turn) % texts_.size()]; }
  Times run(engine::Sequence& sequence, std::span<const int32_t> tokens) {
    const engine::Segment segment = {&sequence, tokens};
    const double begin = now_s(), routed = engine_->routing_s();
    engine_->forward({&segment, 1});
    return {1e3 * (engine_->routing_s() - routed), 1e3 * (now_s() - begin)};
  }
  TokenLists texts_;
  std::unique_ptr<engine::Engine> engine_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Pair {
  double ours = 0, theirs = 0, ratio = 0;
};

// A B A B; the ratio is the median of the turns' ratios, since the machine's speed drifts.
template <class A, class B>
Pair in_turns(int repeats, const A& a, const B& b) {
  a(0), b(0);
  std::vector<double> of_a, of_b, ratios;
  const auto after_a_rest = [](const auto& run, int turn) {  // the other engine's threads still spin for a moment
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return run(turn);
  };
  for (int i = 0; i < repeats; ++i) {
    of_a.push_back(after_a_rest(a, i));
    of_b.push_back(after_a_rest(b, i));
    ratios.push_back(of_a.back() / of_b.back());
  }
  return {median(of_a), median(of_b), median(ratios)};
}

template <class... Values>
void say(fmt::format_string<Values...> format, Values&&... values) {
  std::cout << fmt::format(format, std::forward<Values>(values)...) << std::endl;
}

void run_bench_route(const Arguments& args) {
  const bool is_model = fs::is_directory(args.source);
  Architecture architecture;
  int bits = 0;  // of a model quantised to 8 or 4; then everything that it is compared with has them too
  if (args.monolithic_width % 2 != 0)
    throw Error(ErrorCode::kUsage, fmt::format("--monolithic-width {}: positions rotate pairs", args.monolithic_width),
                "take an even width");
  if (is_model && !args.overrides.empty())
    throw Error(ErrorCode::kUsage, "'" + args.overrides[0] + "': a model's sizes are what they are",
                "config keys can be set with a file of configs/");
  if (!is_model && !args.data.empty() && fs::exists(args.source))
    throw Error(ErrorCode::kUsage, "--data: routers of random weights read no text", "take a model or a run");
  if (is_model) {
    const ModelFolder model = open_model(args.source);
    architecture = model.architecture;
    bits = bits_in(model.config);
  } else {
    Config config = load_config(args.source, args.overrides);
    if (config.model.trunk.vocab_size == 0) config.model.trunk.vocab_size = 4096;
    architecture = config.model;
  }
  const std::string& kind = architecture.component_router.kind;
  if ((kind != "planner" && kind != "trunk") || architecture.domain_router.kind != "encoder") {
    throw Error(ErrorCode::kConfig,
                "bench route needs a model with an encoder as domain_router and a planner (or heads on the trunk) as "
                "component_router",
                "configs/demo.json is one");
  }
  if (args.monolithic_layers == 0 && args.monolithic_width > 0)
    throw Error(ErrorCode::kUsage, "--monolithic-width with --monolithic-layers 0: heads on the trunk have its width",
                "leave one of them out");
  if (args.monolithic_layers == 0 && architecture.trunk.num_dense_layers == 0)
    throw Error(ErrorCode::kUsage, "--monolithic-layers 0: heads on the trunk need a dense layer before them",
                "take a model with model.trunk.num_dense_layers, or at least one layer");
  const int width = args.monolithic_width > 0 ? args.monolithic_width : architecture.trunk.width;
  const int own = num_components(architecture.hierarchy);
  std::vector<int> sizes = args.components;
  if (std::find(sizes.begin(), sizes.end(), own) == sizes.end()) sizes.push_back(own);
  std::sort(sizes.begin(), sizes.end());
  const int few = std::max(3, args.repeats / 3);
  const TokenLists texts = args.data.empty() ? TokenLists() : read_texts(args.data, open_model(args.source));

  Json report = {{"by_components", Json::object()},
                 {"by_components_prefill4096", Json::object()},
                 {"by_components_decode", Json::object()}};
  for (int n : sizes) {
    const bool is_own_text = n == own && !texts.empty();
    const Architecture a = is_own_text ? architecture
                                       : routers_only(n == own ? architecture : with_components(architecture, n)),
                       one = monolithic(a, width, args.monolithic_layers);
    Runner progressive = is_own_text ? Runner(open_model(args.source), args.threads, &texts)
                                     : Runner::random(a, bits, args.threads),
           whole = Runner::random(one, bits, args.threads, is_own_text ? &texts : nullptr);
    const auto routing_ms = [](Runner& runner, auto measure, int num_tokens) {
      return [&runner, measure, num_tokens](int turn) { return (runner.*measure)(turn, num_tokens).routing_ms; };
    };
    const auto pair_of = [&](int repeats, auto measure, int num_tokens) {
      return in_turns(repeats, routing_ms(progressive, measure, num_tokens), routing_ms(whole, measure, num_tokens));
    };
    const Pair prefill = pair_of(args.repeats, &Runner::prefill, 512), decode = pair_of(few, &Runner::decode, 192),
               longer = pair_of(few, &Runner::prefill, kLongest);
    report["by_components"][std::to_string(n)] = prefill.ratio;
    report["by_components_prefill4096"][std::to_string(n)] = longer.ratio;
    report["by_components_decode"][std::to_string(n)] = decode.ratio;
    for (const auto& [what, pair] : {std::pair("prefill 512", prefill), {"prefill 4096", longer}, {"decode", decode}})
      say("{:>4} components  {:12}  {:8.4f} ms against {:8.4f} ms, ratio {:.3f}", n, what, pair.ours, pair.theirs,
          pair.ratio);
    if (n != own) continue;
    for (const auto& [what, pair] : {std::pair("prefill512", prefill), {"prefill4096", longer}, {"decode", decode}}) {
      report[fmt::format("progressive_ms_{}", what)] = pair.ours;
      report[fmt::format("monolithic_ms_{}", what)] = pair.theirs;
      report[fmt::format("ratio_{}", what)] = pair.ratio;
    }
    Runner model = is_model ? Runner(open_model(args.source), args.threads, texts.empty() ? nullptr : &texts)
                            : Runner::random(architecture, bits, args.threads);
    const int tokens = std::min(512, architecture.trunk.context_length);
    std::vector<double> shares, forwards_ms;
    model.prefill(0, tokens);
    for (int i = 0; i < args.repeats; ++i) {
      const Runner::Times times = model.prefill(i, tokens);
      shares.push_back(times.routing_ms / times.forward_ms);
      forwards_ms.push_back(times.forward_ms);
    }
    report["share_of_forward"] = median(shares);
    report["forward_ms_prefill512"] = median(forwards_ms);
    say("the routers are {:.1f} % of the forward pass of {} tokens, {:.2f} ms", 100 * median(shares), tokens,
        median(forwards_ms));
  }
  const ComponentRouter one = monolithic(architecture, width, args.monolithic_layers).component_router;
  report["monolithic"] = {{"kind", one.kind},
                          {"width", one.kind == "trunk" ? architecture.trunk.width : width},
                          {"num_layers", args.monolithic_layers}};
  const DomainRouter& d = architecture.domain_router;
  const ComponentRouter& c = architecture.component_router;
  report["progressive"] = {
      {"domain_router", {{"width", d.width}, {"num_layers", d.num_layers}, {"patch_tokens", d.patch_tokens}}},
      {"component_router",
       {{"kind", c.kind},
        {"width", width_of_heads(architecture)},
        {"num_layers", kind == "trunk" ? 0 : c.num_layers}}}};
  if (bits > 0) report["bits"] = bits;
  if (!texts.empty()) report["trained_components"] = own;  // the others have random weights and tokens
  report["threads"] = args.threads > 0 ? args.threads : num_cpus();
  report["cpu"] = machine_name();
  report["commit"] = commit();
  if (args.json) std::cout << report.dump() << "\n";
}

}  // namespace

void add_bench_route_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Benchmarks: route (train and engine: see ./tessera --help)");
  bench->require_subcommand(1);
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      bench->add_subcommand("route", "Time of progressive routing against one monolithic router, in turns");
  command
      ->add_option(
          "SOURCE", args->source,
          "a file of configs/, a model or a run. The ratios are those of random weights of its sizes; the share of the "
          "forward pass is that of a model's own weights, and so is all of its own size with --data")
      ->capture_default_str();
  command->add_option("--monolithic-width", args->monolithic_width, "of the monolithic router; 0: the trunk's")
      ->check(CLI::Range(0, 1 << 16));
  command
      ->add_option("--monolithic-layers", args->monolithic_layers, "its blocks; 0: heads on the trunk's first layers")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  command->add_option("--components", args->components, "components a layer to try, half of them general")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(8, 1 << 14))
      ->capture_default_str();
  command->add_option(
      "--data", args->data,
      "documents (.jsonl, .jsonl.zst) that a model's routers run on, a second domain active where they want one");
  command->add_option("--repeats", args->repeats, "turns")->check(CLI::Range(1, 10000))->capture_default_str();
  command->add_option("--threads", args->threads, "0: all CPUs")->check(CLI::Range(0, kMostThreads));
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->allow_extras();
  command->footer("Example: ./tessera bench route models/tessera-mini --json");
  command->callback([args, command] {
    args->overrides = config_overrides(*command);
    run_bench_route(*args);
  });
}

}  // namespace tessera
