// tessera-train: training, and what runs on a trainer's model.
#include "apps/commands.h"
#include "train/block_cache.h"
#include "train/denormals.h"

int main(int argc, char** argv) {
  tessera::use_block_cache();
  tessera::flush_denormals();
  CLI::App app("Tessera: mixture-of-hierarchical-components language models", "tessera");
  tessera::add_train_command(app);
  tessera::add_eval_command(app);
  tessera::add_score_command(app);
  tessera::add_bench_train_command(app);
  tessera::add_distil_command(app);
  tessera::add_embed_command(app);
  tessera::add_demo_command(app);
  tessera::add_compare_command(app);
  tessera::add_atlas_command(app);
  return tessera::run_app(app, argc, argv);
}
