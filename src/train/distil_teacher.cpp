#include "train/distil_teacher.h"

#include <torch/csrc/api/include/torch/optim/adamw.h>

#include "base/error.h"
#include "base/log.h"
#include "core/route.h"

namespace tessera {
namespace {

constexpr int kTeacherBatch = 16, kTeacherBlocks = 2, kTeacherPieces = 160, kWindowTokens = 256;
constexpr double kTeacherHeadRate = 5e-3, kTeacherBlockRate = 1e-4;

at::Tensor targets_of(const std::vector<TeacherWindow>& windows, const std::vector<size_t>& which) {
  std::vector<float> values;
  for (size_t i : which) values.insert(values.end(), windows[i].target_M.begin(), windows[i].target_M.end());
  return at::tensor(values).view({static_cast<int64_t>(which.size()), -1});
}

std::vector<std::string> texts_of(const std::vector<TeacherWindow>& windows, const std::vector<size_t>& which) {
  std::vector<std::string> texts;
  for (size_t i : which) texts.push_back(windows[i].window);
  return texts;
}

// The pieces nearest to the boundary.
at::Tensor teacher_log_p(const Teacher& teacher, const std::vector<TeacherWindow>& windows,
                         const std::vector<size_t>& which) {
  return at::log_softmax(teacher.logits(texts_of(windows, which), kTeacherPieces, WordPiece::Keep::kEnd), 1);
}

}  // namespace

void check_draws(int drawn, int wanted, int chunk_tokens) {
  if (drawn < 50 * std::max(1, wanted)) return;
  throw Error(ErrorCode::kData,
              fmt::format("level 1 decides after {} tokens, and of {} texts that were drawn too few are that long",
                          chunk_tokens, drawn),
              "distil on longer documents, or with a longer model.trunk.context_length");
}

std::vector<TeacherWindow> draw_windows(const DomainSampler& sampler, const Tokenizer& tokenizer, int chunk_tokens,
                                        int count, double splice_share, Rng& rng) {
  std::vector<TeacherWindow> windows;
  for (int drawn = 0; static_cast<int>(windows.size()) < count; ++drawn) {
    check_draws(drawn, count, chunk_tokens);
    TeacherWindow w;
    w.text = sampler.draw(rng, kWindowTokens + chunk_tokens, splice_share);
    const std::vector<int32_t> starts = chunk_starts(static_cast<int>(w.text.tokens.size()), chunk_tokens);
    if (starts.size() < 2) continue;
    const size_t chunk = 1 + rng.below(starts.size() - 1);
    const size_t boundary = static_cast<size_t>(starts[chunk]),
                 end = chunk + 1 < starts.size() ? static_cast<size_t>(starts[chunk + 1]) : w.text.tokens.size();
    const size_t begin = std::max<size_t>(1, boundary > kWindowTokens ? boundary - kWindowTokens : 1);
    w.window = tokenizer.decode(std::span(w.text.tokens).subspan(begin, boundary - begin));
    w.target_M.assign(static_cast<size_t>(sampler.num_classes()), 0.0f);
    for (size_t t = boundary; t < end; ++t)
      w.target_M[static_cast<size_t>(w.text.labels[t])] += 1.0f / static_cast<float>(end - boundary);
    w.text.tokens.resize(end);
    w.text.labels.resize(end);
    windows.push_back(std::move(w));
  }
  return windows;
}

void tune_teacher(Teacher& teacher, const std::vector<TeacherWindow>& windows, int epochs, Rng& rng) {
  std::vector<at::Tensor> heads, blocks;
  for (const at::Tensor& tensor : teacher.tunable(kTeacherBlocks)) {
    (tensor.size(0) == static_cast<int64_t>(teacher.domains().size()) ? heads : blocks).push_back(tensor);
  }
  using torch::optim::AdamWOptions;
  torch::optim::AdamW head_optimizer(heads, AdamWOptions(kTeacherHeadRate).weight_decay(0.01));
  torch::optim::AdamW block_optimizer(blocks, AdamWOptions(kTeacherBlockRate).weight_decay(0.01));
  std::vector<size_t> order(windows.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const size_t steps_an_epoch = (order.size() + kTeacherBatch - 1) / kTeacherBatch;
  const double steps = static_cast<double>(steps_an_epoch) * epochs;
  double done = 0, loss_mean = 0;
  Progress progress("teacher", 10.0);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
    for (size_t first = 0; first < order.size(); first += kTeacherBatch) {
      const std::vector<size_t> batch(
          order.begin() + static_cast<int64_t>(first),
          order.begin() + static_cast<int64_t>(std::min(order.size(), first + kTeacherBatch)));
      const double share = 1 - done / steps;
      static_cast<AdamWOptions&>(head_optimizer.param_groups()[0].options()).lr(kTeacherHeadRate * share);
      static_cast<AdamWOptions&>(block_optimizer.param_groups()[0].options()).lr(kTeacherBlockRate * share);
      const at::Tensor log_p = teacher_log_p(teacher, windows, batch);
      const at::Tensor loss = (targets_of(windows, batch) * log_p).sum(1).mean().neg();
      head_optimizer.zero_grad();
      block_optimizer.zero_grad();
      torch::autograd::backward({loss}, {});
      head_optimizer.step();
      block_optimizer.step();
      loss_mean += 0.05 * (loss.item<double>() - loss_mean);
      done += 1;
      progress.update(done, steps, fmt::format("loss {:.3f}", loss_mean));
    }
  }
  progress.finish();
}

at::Tensor teacher_log_labels(const Teacher& teacher, const std::vector<TeacherWindow>& windows) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  Progress progress("teacher's labels", 10.0);
  for (size_t first = 0; first < windows.size(); first += kTeacherBatch) {
    std::vector<size_t> batch;
    for (size_t i = first; i < std::min(windows.size(), first + kTeacherBatch); ++i) batch.push_back(i);
    parts.push_back(teacher_log_p(teacher, windows, batch));
    progress.update(static_cast<double>(first), static_cast<double>(windows.size()));
  }
  progress.finish();
  return at::cat(parts);
}

}  // namespace tessera
