#include "train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "train/scorer.h"

namespace tessera {
namespace {

int32_t sample(const float* logits, int vocab_size, const GenerateOptions& options, Rng& rng) {
  if (options.temperature <= 0) return static_cast<int32_t>(std::max_element(logits, logits + vocab_size) - logits);
  std::vector<int32_t> order(static_cast<size_t>(vocab_size));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::vector<double> share;
  double total = 0;
  for (int32_t token : order) total += std::exp((logits[token] - logits[order[0]]) / options.temperature);
  double kept = 0;
  for (int32_t token : order) {
    share.push_back(std::exp((logits[token] - logits[order[0]]) / options.temperature) / total);
    kept += share.back();
    if (kept >= options.top_p) break;
  }
  double u = rng.uniform() * kept;
  for (size_t i = 0; i < share.size(); ++i) {
    u -= share[i];
    if (u < 0) return order[i];
  }
  return order[share.size() - 1];
}

}  // namespace

Generated generate(const Model& model, const Tokenizer& tokenizer, const std::string& prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& each) {
  const int vocab_size = tokenizer.vocab_size();
  const size_t context = static_cast<size_t>(model.architecture().trunk.context_length);
  Generated out;
  out.tokens = {tokenizer.bos()};
  const std::vector<int32_t> encoded = tokenizer.encode(prompt);
  out.tokens.insert(out.tokens.end(), encoded.begin(), encoded.end());
  out.num_prompt_tokens = static_cast<int>(out.tokens.size());
  if (out.tokens.size() >= context) {
    throw Error(ErrorCode::kData,
                fmt::format("the prompt has {} tokens, the model's context {}", out.tokens.size(), context),
                "shorten the prompt");
  }
  RoutingOptions routing;
  routing.allowed_domains = options.allowed_domains;
  Rng rng(options.seed);
  const double started = now_s();
  for (int i = 0; i < options.max_tokens && out.tokens.size() < context; ++i) {
    const at::Tensor logits = logits_of(model, out.tokens, routing, &out.route);
    const int32_t token =
        sample(logits.select(0, logits.size(0) - 1).contiguous().data_ptr<float>(), vocab_size, options, rng);
    if (token == tokenizer.bos()) break;
    out.tokens.push_back(token);
    if (each) each(tokenizer.token_bytes(token));
  }
  out.text = tokenizer.decode(
      {out.tokens.data() + out.num_prompt_tokens, out.tokens.size() - static_cast<size_t>(out.num_prompt_tokens)});
  out.seconds = now_s() - started;
  return out;
}

}  // namespace tessera
