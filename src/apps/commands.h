// The commands of the two programs. Each add_..._command registers a subcommand whose callback does the work; failures
// are thrown (base/error.h) and printed by run_app.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>

namespace tessera {

// A check of 64-bit options: whole numbers from `least` on. INT64_MAX is what CLI11 makes of anything larger.
inline CLI::Range at_least(int64_t least) { return {least, INT64_MAX - 1, "from " + std::to_string(least)}; }

// tessera: links no LibTorch.
void add_bench_budget_command(CLI::App& app);
void add_bench_engine_command(CLI::App& app);
void add_bench_route_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_completion_command(CLI::App& app);
void add_data_commands(CLI::App& app);
void add_doctor_command(CLI::App& app);
void add_estimate_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_import_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_perplexity_command(CLI::App& app);
void add_quantize_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);

// Both programs: on the engine in tessera, on LibTorch (float64, training's own code) in tessera-train.
void add_eval_command(CLI::App& app);
void add_score_command(CLI::App& app);

// tessera-train: links LibTorch.
void add_bench_train_command(CLI::App& app);
void add_atlas_command(CLI::App& app);
void add_compare_command(CLI::App& app);
void add_demo_command(CLI::App& app);
void add_distil_command(CLI::App& app);
void add_embed_command(CLI::App& app);
void add_train_command(CLI::App& app);

// Parses and runs. Exit codes: 0 done, 2 the user's fault (message and hint on standard error), 1 ours, 130 stopped by
// Ctrl-C.
int run_app(CLI::App& app, int argc, char** argv);

}  // namespace tessera
