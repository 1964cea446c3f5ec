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
};
void add_engine_options(CLI::App& command, EngineArguments& args);

struct LoadedEngine {
  std::unique_ptr<engine::Engine> engine;
  Tokenizer tokenizer;
  std::vector<int32_t> stop_tokens;  // config.json's eos_tokens
};
// Throws Error{kUsage} for a domain that the model doesn't have, Error{kData} for a tokenizer that doesn't fit it.
LoadedEngine load_engine(const EngineArguments& args);

void add_sampler_options(CLI::App& command, engine::SamplerOptions& sampler);

}  // namespace tessera
