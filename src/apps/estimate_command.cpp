// tessera estimate: what a config's model costs, without allocating it.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "apps/commands.h"
#include "apps/config_arguments.h"
#include "base/error.h"
#include "base/log.h"
#include "core/cost_model.h"

namespace tessera {
namespace {

struct EstimateOptions {
  std::string config_path, flat_path;  // flat_path: --widths
  double total_share = 0.75, active_share = 1;
  bool json = false;
};

constexpr int kAssumedVocab = 4096;  // the tokenizer of the small configs

// vocab_size 0 means the data's tokenizer decides.
void resolve_vocab_size(Config& config) {
  if (config.model.trunk.vocab_size > 0) return;
  const std::filesystem::path index = std::filesystem::path(config.data.path) / "index.json";
  if (!std::filesystem::exists(index)) {
    log_info("note: model.trunk.vocab_size is taken from the data, and {} isn't there yet: {} assumed", index.string(),
             kAssumedVocab);
    config.model.trunk.vocab_size = kAssumedVocab;
    return;
  }
  const Json json = read_json_file(index);
  const bool is_count = json.is_object() && json.contains("vocab_size") && json["vocab_size"].is_number_integer() &&
                        json["vocab_size"] > 0 && json["vocab_size"] <= 1 << 30;
  if (!is_count) {
    throw Error(ErrorCode::kData, index.string() + ": expected a whole number above 0 under \"vocab_size\"",
                "`tessera data build` writes it again");
  }
  config.model.trunk.vocab_size = json["vocab_size"].get<int>();
}

std::string describe(const Architecture& a) {
  const Trunk& t = a.trunk;
  const Hierarchy& h = a.hierarchy;
  std::string text = fmt::format(
      "{} layers, width {}, {} query and {} key/value heads of {}, vocabulary {}{}, context {}", t.num_layers, t.width,
      t.num_heads, t.num_kv_heads, head_dim(t), t.vocab_size, t.tied_embeddings ? " (tied)" : "", t.context_length);
  if (t.previous_token) text += ", reads the token before";
  if (h.domains.empty()) return text + fmt::format("\ndense feed-forward blocks of width {}", t.dense_width);
  text += fmt::format("\n{} components a layer, {} active, width {}", num_components(h), h.num_active,
                      h.base_width + h.unique_width);
  if (h.num_banks > 0) {
    text += fmt::format(" = {} of one of {} base banks + {} of its own", h.base_width, h.num_banks, h.unique_width);
  }
  for (const Domain& d : h.domains) {
    text += fmt::format("{}{}{} {}", &d == h.domains.data() ? "\ndomains: " : ", ", d.name,
                        d.always ? " (general)" : "", d.num_components);
  }
  return text + fmt::format("\nrouters: {} (domains), {} (components)", a.domain_router.kind, a.component_router.kind);
}

std::string ratio(int64_t value, int64_t reference) {
  return reference == 0 ? ""
                        : fmt::format("{:.1f} %", 100.0 * static_cast<double>(value) / static_cast<double>(reference));
}

void print_row(const std::string& name, const ParameterCount::OfPart& count, const ParameterCount::OfPart& flat) {
  if (count.total == 0 && count.active == 0 && flat.total == 0 && flat.active == 0) return;
  const auto show = [](int64_t n) { return human_count(static_cast<double>(n)); };
  std::cout << fmt::format("  {:<22}{:>8}{:>8}   {:>8}{:>8}   {:>8}{:>9}\n", name, show(count.total),
                           show(count.active), show(flat.total), show(flat.active), ratio(count.total, flat.total),
                           ratio(count.active, flat.active));
}

void print_parameters(const ParameterCount& count, const ParameterCount& flat) {
  std::cout << fmt::format("\nParameters            {:>18}   {:>16}   {:>17}\n", "this model", "flat twin",
                           "of the flat twin");
  std::cout << fmt::format("  {:<22}{:>8}{:>8}   {:>8}{:>8}   {:>8}{:>9}\n", "", "total", "active", "total", "active",
                           "total", "active");
  for (int i = 0; i < kNumParts; ++i) {
    const Part part = static_cast<Part>(i);
    print_row(part_name(part), count.of(part), flat.of(part));
  }
  print_row("banks + components",
            {count.component_weights(), count.of(Part::kBank).active + count.of(Part::kComponent).active},
            {flat.component_weights(), flat.of(Part::kComponent).active});
  print_row("all", {count.total(), count.active()}, {flat.total(), flat.active()});
  std::cout << "  The flat twin has the same trunk, as many components of the same width, and shares nothing.\n";
}

std::string duration(double seconds) {
  if (seconds < 3 * 86400.0) return human_seconds(seconds);
  const double days = seconds / 86400;
  return days < 1000 ? fmt::format("{:.1f} days", days) : fmt::format("{} years", human_count(days / 365));
}

std::string rate(double tokens_per_s) {
  return tokens_per_s < 10 ? fmt::format("{:.2g}", tokens_per_s) : human_count(tokens_per_s);
}

void print_costs(const Config& config) {
  const TrainBytes train = train_bytes(config.model, config.train);
  const RunBytes run = run_bytes(config.model);
  const Flops flops = forward_flops(config.model);
  const double tokens = static_cast<double>(config.train.steps) * static_cast<double>(config.train.batch_tokens);
  std::cout << fmt::format("\nTo train: {}, {} with micro-batches of {} tokens\n", human_bytes(train.total()),
                           config.train.precision, config.train.micro_batch_tokens);
  std::cout << fmt::format(
      "  weights {}, gradients {}, AdamW moments {}, activations {} (nothing recomputed), logits {}\n",
      human_bytes(train.weights), human_bytes(train.gradients), human_bytes(train.moments),
      human_bytes(train.activations), human_bytes(train.logits));
  std::cout << fmt::format("To run: {}\n", human_bytes(run.total()));
  std::cout << fmt::format("  weights in bf16 {}, keys and values of {} tokens {}\n", human_bytes(run.weights),
                           config.model.trunk.context_length, human_bytes(run.kv_cache));
  std::cout << fmt::format("FLOPs a token: {} forward (weights {}, attention {}), {} in training\n",
                           human_count(flops.total()), human_count(flops.weights), human_count(flops.attention),
                           human_count(kTrainPasses * flops.total()));
  std::cout << fmt::format("\nOn stated hardware: {} tokens of training ({} steps of {})\n", human_count(tokens),
                           config.train.steps, config.train.batch_tokens);
  std::cout << fmt::format("  {:<17}{:<19}{:>8}{:>12}  {:<21}{}\n", "", "peak of one", "assumed", "training",
                           "memory of one", "generation");
  for (const Hardware& hardware : known_hardware()) {
    const HardwareEstimate e = estimate_on(hardware, config.model, config.train);
    const std::string memory = human_bytes(e.train_bytes_a_device) + (e.train_fits ? ", fits" : ", too big");
    const std::string generation =
        e.run_devices == 0 ? "too big" : fmt::format("{} tokens/s on {}", rate(e.generate_tokens_per_s), e.run_devices);
    std::cout << fmt::format("  {:<17}{:<19}{:>6.0f} %{:>12}  {:<21}{}\n", hardware.name, hardware.basis,
                             100 * hardware.share_of_peak, duration(e.train_s), memory, generation);
  }
  std::cout << fmt::format(
      "  Assumed: the share of peak in training; weights, gradients and moments sharded over all devices, a "
      "micro-batch over\n"
      "  {} of a node; a token of text bound by reading its weights. A guide for training, an upper bound for "
      "generation.\n",
      kDevicesANode);
}

Json report(const Config& config) {
  const TrainBytes train = train_bytes(config.model, config.train);
  const RunBytes run = run_bytes(config.model);
  const Flops flops = forward_flops(config.model);
  Json json = parameters_json(config.model);
  json.update({{"train_bytes", static_cast<int64_t>(train.total())},
               {"run_bytes", static_cast<int64_t>(run.total())},
               {"flops_per_token", flops.total()},
               {"train_flops_per_token", kTrainPasses * flops.total()},
               {"vocab_size", config.model.trunk.vocab_size},
               {"hardware", Json::array()}});
  for (const Hardware& hardware : known_hardware()) {
    const HardwareEstimate e = estimate_on(hardware, config.model, config.train);
    json["hardware"].push_back({{"name", hardware.name},
                                {"num_devices", hardware.num_devices},
                                {"peak_flops", hardware.peak_flops},
                                {"share_of_peak", hardware.share_of_peak},
                                {"train_s", e.train_s},
                                {"train_bytes_a_device", e.train_bytes_a_device},
                                {"train_fits", e.train_fits},
                                {"run_devices", e.run_devices},
                                {"generate_tokens_per_s", e.generate_tokens_per_s}});
  }
  return json;
}

void run_estimate(const EstimateOptions& options, const std::vector<std::string>& overrides) {
  Config config = load_config(options.config_path, overrides);
  resolve_vocab_size(config);
  const ParameterCount count = count_parameters(config.model), flat = count_parameters(flat_twin(config.model));
  std::cout << config.name << ": " << describe(config.model) << '\n';
  print_parameters(count, flat);
  print_costs(config);
  if (options.json) std::cout << report(config).dump() << '\n';
  std::cout.flush();
}

// The widths of banks and components with which the config has these shares of a flat MoE's parameters.
void run_widths(const EstimateOptions& options, const std::vector<std::string>& overrides) {
  Config config = load_config(options.config_path, overrides), flat = load_config(options.flat_path);
  resolve_vocab_size(config);
  resolve_vocab_size(flat);
  const SolvedWidths solved = solve_widths(config.model, flat.model, options.total_share, options.active_share);
  const Hierarchy& h = solved.architecture.hierarchy;
  std::cout << fmt::format(
      "base_width {}, unique_width {}, always_on_width {}: {:.1f} % of the parameters of {}, {:.1f} % of its active "
      "ones\n",
      h.base_width, h.unique_width, h.always_on_width, 100 * solved.total_share, flat.name, 100 * solved.active_share);
  if (!options.json) return;
  std::cout << Json{{"base_width", h.base_width},
                    {"unique_width", h.unique_width},
                    {"always_on_width", h.always_on_width},
                    {"total_share", solved.total_share},
                    {"active_share", solved.active_share}}
                   .dump()
            << '\n';
}

}  // namespace

void add_estimate_command(CLI::App& app) {
  auto options = std::make_shared<EstimateOptions>();
  CLI::App* command =
      app.add_subcommand("estimate", "Parameters, bytes, FLOPs and time of a config, without allocating the model");
  command->add_option("config", options->config_path, "A config file; --KEY=VALUE overrides one of its keys")
      ->required();
  command->add_option("--widths", options->flat_path,
                      "A flat MoE's config: print the widths of banks and components with which this one has "
                      "--total-share of its parameters and --active-share of its active ones");
  command->add_option("--total-share", options->total_share)->check(CLI::Range(0.01, 10.0))->capture_default_str();
  command->add_option("--active-share", options->active_share)->check(CLI::Range(0.01, 10.0))->capture_default_str();
  command->add_flag("--json", options->json, "The last line is one JSON object with the exact figures");
  command->allow_extras();  // the overrides
  command->footer(
      "Example:\n  tessera estimate configs/demo.json --model.hierarchy.num_active=4 --json\n"
      "  tessera estimate configs/compare/mhc-75-100.json --widths configs/compare/flat-32.json");
  command->callback([options, command] {
    options->flat_path.empty() ? run_estimate(*options, config_overrides(*command))
                               : run_widths(*options, config_overrides(*command));
  });
}

}  // namespace tessera
