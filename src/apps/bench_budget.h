// ./tessera bench engine --budget: a model that doesn't fit in memory, against plain LRU at the same budget.
#pragma once
#include <cstdint>
#include <string>

namespace tessera {

struct BudgetBenchOptions {
  std::string routes;                      // a trained model or run: its routes on the text are replayed
  std::string text;                        // a file of real text
  int64_t model_bytes = int64_t{2} << 30;  // of the model of random weights, at least
  int turns = 2;                           // that count, after one that doesn't
  int threads = 0;                         // 0: all CPUs
  bool json = false;                       // print the JSON line
};

// Makes the model in a temporary folder and runs it with 100, 50 and 25 % of its components' bytes in memory, past the
// page cache, by route and by plain LRU in turns. Prints a table, and with `json` as the last line
//   {"25": {"tokens_per_s", "bytes_read", "hit_rate", "ready_rate", "lru_tokens_per_s", "lru_hit_rate",
//           "belady_hit_rate", "ceiling_tokens_per_s", "decode": {the same}}, "50": ..., "100": ...,
//    "disk_bytes_per_s", "model_bytes", "cpu", "commit", ...}
// of reading text in the engine's own passes, and in "decode" one token at a time. Hits are components that needed no
// read. The ceiling is what Belady's hits (Belady 1966: evict what is used last) would give with the disk as measured
// and the arithmetic beside it. Returns 0. Throws Error.
int run_budget_bench(const BudgetBenchOptions& options);

}  // namespace tessera
