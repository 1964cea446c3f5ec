// The options of every command that runs the engine.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "core/tokenizer.h"
#include "engine/engine.h"
#include "engine/sampler.h"

namespace tessera {

struct EngineArguments {
  std::string model;
  std::vector<std::string> domains, deny;
  int threads = 0;
  std::string cache = "f32";
  int64_t memory_bytes = 0;  // 0: no limit
  int64_t kept_a_token = 0;  // bytes that an answer keeps to its end, for the plan
};
void add_engine_options(CLI::App& command, EngineArguments& args);

inline constexpr int kMostTokens = 1 << 20;  // that a text may be asked to have
// Makes bytes of "512MiB" (parse_bytes of base/log.h); refuses what is no size above 0.
CLI::Validator size_value();

struct LoadedEngine {
  std::unique_ptr<engine::Engine> engine;
  Tokenizer tokenizer;
  std::vector<int32_t> stop_tokens;  // config.json's eos_tokens
};
// `text_file` is what will be scored, if anything: a budget has to hold it too. Prints the memory plan when there is a
// budget. Throws Error{kUsage} for a domain that the model doesn't have or a budget that can't work, Error{kData} for a
// tokenizer that doesn't fit the model.
LoadedEngine load_engine(const EngineArguments& args, const std::string& text_file = "");

// What a budget came to, for --json: the plan's bytes, components read and hit rate.
Json memory_json(const engine::Engine& engine);

void add_sampler_options(CLI::App& command, engine::SamplerOptions& sampler);

}  // namespace tessera
