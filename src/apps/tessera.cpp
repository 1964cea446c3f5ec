// tessera: everything that needs no LibTorch.
#include "apps/commands.h"

int main(int argc, char** argv) {
  CLI::App app("Tessera: mixture-of-hierarchical-components language models", "tessera");
  tessera::add_data_commands(app);
  tessera::add_estimate_command(app);
  tessera::add_import_command(app);
  tessera::add_inspect_command(app);
  tessera::add_generate_command(app);
  tessera::add_chat_command(app);
  tessera::add_eval_command(app);
  tessera::add_score_command(app);
  tessera::add_perplexity_command(app);
  tessera::add_quantize_command(app);
  tessera::add_tokenize_command(app);
  tessera::add_doctor_command(app);
  tessera::add_bench_budget_command(app);
  tessera::add_bench_engine_command(app);
  tessera::add_bench_route_command(app);
  tessera::add_completion_command(app);
  return tessera::run_app(app, argc, argv);
}
