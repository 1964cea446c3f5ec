#include "apps/engine_arguments.h"

#include <algorithm>

#include "apps/commands.h"
#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/route.h"

namespace tessera {

CLI::Validator size_value() {
  return {[](std::string& text) {
            const std::optional<int64_t> bytes = parse_bytes(text);
            if (!bytes || *bytes == 0) return "expected a size such as 512MiB or 1.5GB, found '" + text + "'";
            text = std::to_string(*bytes);
            return std::string();
          },
          "SIZE"};
}

void add_engine_options(CLI::App& command, EngineArguments& args) {
  command.add_option("MODEL_OR_RUN", args.model, "a model folder or a run")->required();
  command.add_option("--domains", args.domains, "only these domains may be active, for example code,mathematics")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--deny", args.deny, "domains that must not be active: their components are never read")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--threads", args.threads, "0: all CPUs")->check(CLI::Range(0, kMostThreads));
  command.add_option("--cache", args.cache, "keys and values in f32, f16 or i8")
      ->check(CLI::IsMember({"f32", "f16", "i8"}))
      ->capture_default_str();
  command
      .add_option("--memory", args.memory_bytes,
                  "all memory that the program may hold, for example 512MiB: what doesn't fit is read on demand")
      ->transform(size_value());
}

Json memory_json(const engine::Engine& engine) {
  const engine::MemoryPlan& plan = *engine.plan();
  const engine::ResidencyStatistics s = engine.residency()->statistics();
  return {{"budget_bytes", plan.budget_bytes},
          {"process_bytes", plan.process_bytes},
          {"resident_bytes", plan.resident_bytes},
          {"cache_bytes", plan.cache_bytes},
          {"scratch_bytes", plan.scratch_bytes},
          {"component_bytes", plan.slot_bytes},
          {"components", plan.num_components},
          {"components_in_memory", plan.num_slots},
          {"bytes_read", s.bytes_read},
          {"hit_rate", s.hit_rate()}};
}

void add_sampler_options(CLI::App& command, engine::SamplerOptions& sampler) {
  command.add_option("--temperature", sampler.temperature, "0: the most probable token")->capture_default_str();
  command.add_option("--top-k", sampler.top_k, "only the K most probable tokens; 0: all")->capture_default_str();
  command.add_option("--top-p", sampler.top_p, "nucleus sampling")->capture_default_str();
  command.add_option("--min-p", sampler.min_p, "at least so many times the best token's probability")
      ->capture_default_str();
  command.add_option("--repetition-penalty", sampler.repetition_penalty, "of tokens that the text has; 1: none")
      ->capture_default_str();
  command.add_option("--seed", sampler.seed, "of the sampling")->check(at_least(0))->capture_default_str();
}

namespace {

// What a file of text and its tokens take at most, in all: 4 bytes a token, and copies.
int64_t text_bytes(const std::string& file) {
  std::error_code missing;  // is said by who reads it
  const std::uintmax_t size = std::filesystem::file_size(file, missing);
  if (missing) return 0;
  return static_cast<int64_t>(size) * 12 * (file.ends_with(".zst") ? 6 : 1);
}

}  // namespace

LoadedEngine load_engine(const EngineArguments& args, const std::string& text_file) {
  ModelFolder folder = open_model(args.model);
  Tokenizer tokenizer = load_tokenizer(folder);
  engine::EngineOptions options;
  options.num_threads = args.threads;
  options.allowed_domains = allowed_domains(folder.architecture.hierarchy, args.domains, args.deny, "--domains/--deny");
  if (!options.allowed_domains.empty() &&
      std::count(options.allowed_domains.begin(), options.allowed_domains.end(), 1) == 0)
    log_warn("every domain is barred: the general domain's components alone serve");
  options.kv_type = args.cache == "f32" ? KvType::kF32 : args.cache == "f16" ? KvType::kF16 : KvType::kI8;
  std::vector<int32_t> stop_tokens = folder.eos_tokens;
  if (args.memory_bytes > 0) {
    options.plan = engine::plan_memory(
        folder, options.allowed_domains, options.kv_type, args.threads > 0 ? args.threads : num_cpus(),
        args.memory_bytes, text_bytes(text_file) + args.kept_a_token * folder.architecture.trunk.context_length);
    log_info(to_text(*options.plan));
  }
  return {std::make_unique<engine::Engine>(std::move(folder), std::move(options)), std::move(tokenizer),
          std::move(stop_tokens)};
}

}  // namespace tessera
