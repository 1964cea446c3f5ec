#include "train/scorer.h"

#include <ATen/Context.h>

#include <algorithm>

#include "base/error.h"
#include "train/blocks.h"
#include "train/losses.h"

namespace tessera {
namespace {

void check_tokens(const std::vector<int32_t>& tokens, int vocab_size) {
  for (int32_t token : tokens) {
    if (token < 0 || token >= vocab_size) {
      throw Error(
          ErrorCode::kData,
          "token " + std::to_string(token) + " is not in the model's vocabulary of " + std::to_string(vocab_size),
          "the tokenizer is not the one that the model was trained with");
    }
  }
}

// Rows of the texts' tokens but the last; what pads a short row is a piece of its own, so nothing sees it.
PackedRows rows_of(const Model& model, std::span<const std::vector<int32_t>> texts, std::span<const int> domain_labels,
                   bool with_targets) {
  size_t longest = 0;
  const size_t cut = with_targets ? 1 : 0;
  for (const auto& text : texts) {
    TESSERA_CHECK(text.size() > cut, "a text needs a start token" + std::string(with_targets ? " and one more" : ""));
    check_tokens(text, model.architecture().trunk.vocab_size);
    longest = std::max(longest, text.size() - cut);
  }
  std::vector<int32_t> tokens, starts, targets, labels;
  for (size_t r = 0; r < texts.size(); ++r) {
    const size_t length = texts[r].size() - cut;
    for (size_t t = 0; t < longest; ++t) {
      const bool pad = t >= length;
      tokens.push_back(pad ? 0 : texts[r][t]);
      starts.push_back(pad ? static_cast<int32_t>(length) : 0);
      if (with_targets) targets.push_back(pad ? -1 : texts[r][t + 1]);
      if (!domain_labels.empty()) labels.push_back(domain_labels[r]);
    }
  }
  return pack_rows(static_cast<int64_t>(texts.size()), static_cast<int64_t>(longest), tokens, starts, targets,
                   std::move(labels), model.chunk_tokens(), model.device());
}

}  // namespace

std::vector<ScoredText> ModelScorer::score(std::span<const std::vector<int32_t>> texts,
                                           std::span<const int> domain_labels, std::span<const Route> replay) {
  const at::NoGradGuard no_grad;
  std::vector<ScoredText> scored;
  if (!replay.empty()) {  // a route belongs to one text
    TESSERA_CHECK(replay.size() == texts.size(), "one route a text");
    for (size_t i = 0; i < texts.size(); ++i) {
      RoutingOptions options = options_;
      options.replay = &replay[i];
      scored.push_back(
          ModelScorer(model_, options)
              .score(texts.subspan(i, 1), domain_labels.empty() ? domain_labels : domain_labels.subspan(i, 1))[0]);
    }
    return scored;
  }
  const PackedRows rows = rows_of(model_, texts, domain_labels, true);
  const Forward forward = model_.forward(rows, options_);
  const at::Tensor hidden_SD = forward.hidden_RTD.reshape({-1, forward.hidden_RTD.size(-1)});
  const at::Tensor log_probs =
      target_log_probs(hidden_SD, model_.head(), rows.targets_RT.reshape({-1})).to(at::kCPU).contiguous();
  const float* values = log_probs.data_ptr<float>();
  for (size_t r = 0; r < texts.size(); ++r) {
    const int64_t length = static_cast<int64_t>(texts[r].size()) - 1;
    const float* row = values + static_cast<int64_t>(r) * rows.num_tokens;
    scored.push_back(
        {{row, row + length}, route_of_row(model_.architecture(), rows, forward, static_cast<int64_t>(r), length)});
  }
  return scored;
}

at::Tensor logits_of(const Model& model, const std::vector<int32_t>& tokens, const RoutingOptions& options,
                     Route* route) {
  const at::NoGradGuard no_grad;
  const PackedRows rows = rows_of(model, {&tokens, 1}, {}, false);
  const Forward forward = model.forward(rows, options);
  if (route) *route = route_of_row(model.architecture(), rows, forward, 0, rows.num_tokens);
  return project(forward.hidden_RTD[0], model.head()).to(at::kCPU, at::kFloat);
}

at::Device device_named(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (!at::hasCUDA()) {
    throw Error(ErrorCode::kConfig, "config key 'train.device': this LibTorch finds no CUDA device",
                "use --train.device=cpu, or install torch's CUDA wheel in .venv");
  }
  return at::kCUDA;
}

}  // namespace tessera
