// One side of bench/train.py: training steps of a model on given tokens, when told to, timed.
#include <fstream>
#include <iostream>

#include "apps/commands.h"
#include "base/error.h"
#include "base/log.h"
#include "base/peak_memory.h"
#include "base/threads.h"
#include "core/cost_model.h"
#include "train/losses.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/products.h"
#include "train/section_timer.h"
#include "train/tasks.h"

namespace tessera {
namespace {

// Best rate over square products from 256 to 4,096, one a thread, as this precision multiplies here: what a step could
// reach at most.
double gemm_peak_gflops(bool in_bf16) {
  double best = 0;
  const int64_t threads = at::get_num_threads();
  for (int64_t n : {256, 512, 1024, 2048, 4096}) {
    const FactorTensor factors(at::full({2 * threads, n, n}, 0.5, at::kFloat), in_bf16);
    const at::Tensor products = at::zeros({threads, n, n}, at::kFloat);
    for (int repeat = 0; repeat < (n < 2048 ? 8 : 3); ++repeat) {
      const double begin = now_s();
      for_each_task(threads, [&](int64_t i) {
        product(in_bf16, n, n, n, factors.from(2 * i * n * n, n), factors.from((2 * i + 1) * n * n, n),
                products.mutable_data_ptr<float>() + i * n * n, n);
      });
      best = std::max(best, 2e-9 * static_cast<double>(n * n * n * threads) / (now_s() - begin));
    }
  }
  return best;
}

// "steps N": N optimizer steps on the same micro-batch; one JSON line. "peak": the rate of the matrix product.
void serve(const std::string& model_path, int64_t rows, const std::string& tokens_path, const std::string& precision,
           int threads) {
  at::set_num_threads(threads);
  const at::ScalarType compute = precision == "bf16" ? at::kBFloat16 : at::kFloat;
  const bool in_bf16 = multiplies_bf16(compute);
  const Model model = [&] {  // the mapped file must not count as memory of the training
    const ModelFolder folder = open_model(model_path);
    return Model(folder.architecture, Parameters(folder, at::kFloat, at::kCPU), compute);
  }();
  OptimizerConfig config;
  Optimizer optimizer(model.parameters(), config);
  std::ifstream file(tokens_path);
  std::vector<int32_t> inputs, targets;
  for (int64_t token; file >> token;) inputs.push_back(static_cast<int32_t>(token));
  const int64_t length = static_cast<int64_t>(inputs.size()) / rows;
  targets.assign(inputs.begin(), inputs.end());
  for (size_t i = 0; i < targets.size(); ++i)
    targets[i] = (static_cast<int64_t>(i) + 1) % length == 0 ? -1 : inputs[i + 1];
  // Rows of the domains in turn, so that level 1 has its loss and its gradient, as in training.
  const auto num_domains = static_cast<int64_t>(routed_names(model.architecture().hierarchy).size());
  std::vector<int32_t> labels(num_domains > 1 ? inputs.size() : 0);
  for (size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<int32_t>(static_cast<int64_t>(i) / length % num_domains);
  const PackedRows batch = pack_rows(rows, length, inputs, std::vector<int32_t>(inputs.size(), 0), targets,
                                     std::move(labels), model.chunk_tokens(), at::kCPU);
  const double num_targets = static_cast<double>(rows * (length - 1));
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "peak") {
      std::cout << Json{{"gflops", gemm_peak_gflops(in_bf16)}, {"precision", in_bf16 ? "bf16" : "f32"}}.dump()
                << std::endl;
      continue;
    }
    const int64_t steps = std::stoll(line.substr(line.find(' ') + 1));
    double first_loss = 0, optimizer_s = 0;
    SectionTimer::totals().clear();
    const double begin = now_s();
    for (int64_t step = 0; step < steps; ++step) {
      const Forward forward = model.forward(batch, {});
      const at::Tensor hidden = forward.hidden_RTD.reshape({-1, forward.hidden_RTD.size(-1)});
      const at::Tensor loss =
          linear_cross_entropy_sum(hidden, model.head(), batch.targets_RT.reshape({-1})) / num_targets;
      if (step == 0) first_loss = loss.item<double>();
      torch::autograd::backward({add_router_losses(loss, forward, LossConfig(), 1)}, {});
      const double optimizer_begin = now_s();
      optimizer.clip_gradients();
      optimizer.step(config.lr);
      optimizer_s += now_s() - optimizer_begin;
    }
    Json parts = Json::object();
    for (const auto& [name, seconds] : SectionTimer::totals()) parts[name] = seconds / static_cast<double>(steps);
    parts["optimizer"] = optimizer_s / static_cast<double>(steps);
    std::cout << Json{{"seconds", (now_s() - begin) / static_cast<double>(steps)},
                      {"optimizer_seconds", optimizer_s / static_cast<double>(steps)},
                      {"loss", first_loss},
                      {"peak_rss_bytes", peak_rss_bytes()},
                      {"parts", parts}}
                     .dump()
              << std::endl;
  }
}

void write_random(const std::filesystem::path& folder) {
  const Json config = read_json_file(folder / "config.json");
  const Architecture architecture = architecture_from_json(config.at("model"));
  Parameters(architecture, /*seed=*/1).save(folder / "model.safetensors", architecture, config_hash(config));
}

}  // namespace

void add_bench_train_command(CLI::App& app) {
  struct Arguments {
    std::string model, tokens, precision = "f32";
    bool write_random = false;
    int64_t rows = 8;
    int threads = 2;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("bench-train-worker", "Our side of ./tessera bench train")->group("");
  command->add_option("MODEL", args->model)->required();
  command->add_option("TOKENS", args->tokens, "token ids as text, rows one after the other")->required();
  command->add_option("--rows", args->rows);
  command->add_option("--precision", args->precision);
  command->add_option("--threads", args->threads)->check(CLI::Range(0, kMostThreads));
  command->add_flag("--write-random", args->write_random, "write fresh weights beside MODEL's config.json and stop");
  command->callback([args] {
    if (args->write_random) return write_random(args->model);
    serve(args->model, args->rows, args->tokens, args->precision, args->threads);
  });
}

}  // namespace tessera
