#include "engine/scorer.h"

#include <algorithm>

#include "base/error.h"

namespace tessera::engine {
namespace {

constexpr size_t kPassTokens = 512, kLogitRows = 64;

}  // namespace

std::vector<ScoredText> EngineScorer::score(std::span<const std::vector<int32_t>> texts,
                                            std::span<const int> domain_labels, std::span<const Route> replay) {
  const size_t width = static_cast<size_t>(engine_.architecture().trunk.width),
               vocab = static_cast<size_t>(vocab_size());
  std::vector<ScoredText> scored;
  std::vector<float> logits(kLogitRows * vocab);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::span<const int32_t> text = texts[i];
    TESSERA_CHECK(text.size() > 1, "a text needs a start token and one more");
    Sequence sequence = engine_.new_sequence(true);
    if (!domain_labels.empty()) sequence.label = domain_labels[i];
    if (!replay.empty()) {
      TESSERA_CHECK(replay.size() == texts.size() && replay[i].num_tokens + 1 >= static_cast<int>(text.size()),
                    "a replayed route must be of the same text");
      sequence.replay = &replay[i];
    }
    ScoredText out;
    const size_t pass = std::min(kPassTokens, static_cast<size_t>(engine_.most_pass_tokens()));
    for (size_t begin = 0; begin + 1 < text.size(); begin += pass) {
      const size_t count = std::min(pass, text.size() - 1 - begin);
      const Segment segment = {&sequence, text.subspan(begin, count), Outputs::kAll};
      const std::span<const float> hidden = engine_.forward({&segment, 1});
      for (size_t r = 0; r < count; r += kLogitRows) {
        const size_t rows = std::min(kLogitRows, count - r);
        engine_.logits(hidden.subspan(r * width, rows * width), logits.data());
        for (size_t k = 0; k < rows; ++k) {
          const float* row = &logits[k * vocab];
          const int32_t target = text[begin + r + k + 1];
          if (target < 0 || static_cast<size_t>(target) >= vocab)
            throw Error(ErrorCode::kData, "token " + std::to_string(target) + " is not in the model's vocabulary");
          out.log_probs.push_back(row[target] - log_sum_exp_row(row, static_cast<int64_t>(vocab)));
        }
      }
    }
    out.route = std::move(sequence.route);
    scored.push_back(std::move(out));
  }
  return scored;
}

}  // namespace tessera::engine
