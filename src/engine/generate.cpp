#include "engine/generate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace tessera::engine {
namespace {

constexpr size_t kMostKept = 8;

size_t shared_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  return n;
}

// Length of the longest end of `text` that begins a stop string.
size_t held_back(const std::string& text, const std::vector<std::string>& stops) {
  size_t most = 0;
  for (const std::string& stop : stops) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > most; --n) {
      if (text.compare(text.size() - n, n, stop, 0, n) == 0) {
        most = n;
        break;
      }
    }
  }
  return most;
}

}  // namespace

std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt, bool parse_special) {
  std::vector<int32_t> tokens;
  if (tokenizer.bos() >= 0) tokens.push_back(tokenizer.bos());
  const std::vector<int32_t> encoded = tokenizer.encode(prompt, parse_special);
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  return tokens;
}

std::shared_ptr<Generation> Batch::add(std::vector<int32_t> tokens, GenerateOptions options,
                                       std::function<bool(std::string_view)> each) {
  check(options.sampler);
  if (tokens.empty()) throw Error(ErrorCode::kData, "the prompt is empty and the model has no start token");
  if (static_cast<int>(tokens.size()) >= engine_.context_length()) {
    throw Error(
        ErrorCode::kData,
        fmt::format("the prompt has {} tokens, the model's context {}", tokens.size(), engine_.context_length()),
        "shorten the prompt, or a chat's system message");
  }
  std::erase(options.stop, "");
  options.stop_tokens.push_back(tokenizer_.bos());
  auto generation = std::make_shared<Generation>();
  generation->result_.num_prompt_tokens = static_cast<int>(tokens.size());
  const Sequence* best = nullptr;
  int64_t most = 0;
  for (const Sequence& kept : kept_) {
    // The last token of the prompt is run in any case: its output is wanted.
    const size_t shared = std::min(shared_prefix(kept.tokens, tokens), tokens.size() - 1);
    const int64_t reusable = engine_.reusable_prefix(static_cast<int64_t>(shared));
    if (reusable > most && (kept.records_route || !options.records_route)) most = reusable, best = &kept;
  }
  generation->sequence_ = best ? engine_.prefix_of(*best, most) : engine_.new_sequence(options.records_route);
  if (engine_.residency()) kept_.clear();  // the plan has room for one text's keys and values
  generation->result_.tokens = std::move(tokens);
  if (options.grammar) {
    generation->grammar_ = std::make_unique<GrammarState>(options.grammar);
    if (!vocabulary_) vocabulary_ = std::make_unique<SortedVocabulary>(tokenizer_);
  }
  generation->options_ = std::move(options);
  generation->each_ = std::move(each);
  running_.push_back(generation);
  return generation;
}

void Batch::take_token(Generation& g, std::span<float> logits) {
  Generated& result = g.result_;
  const GenerateOptions& options = g.options_;
  std::vector<TokenLogprob> top;
  float log_total = 0;
  if (options.num_logprobs > 0) {
    log_total = log_sum_exp_row(logits.data(), static_cast<int64_t>(logits.size()));
    std::vector<int32_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    const auto middle = order.begin() + std::min<int64_t>(options.num_logprobs, static_cast<int64_t>(order.size()));
    std::partial_sort(order.begin(), middle, order.end(), [&](int32_t a, int32_t b) {
      const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    top.reserve(static_cast<size_t>(middle - order.begin()));
    for (auto it = order.begin(); it != middle; ++it)
      top.push_back({*it, logits[static_cast<size_t>(*it)] - log_total});
  }
  // Ids that the tokenizer has no token for (a padded embedding table) are no choice.
  const size_t known = std::min(logits.size(), static_cast<size_t>(tokenizer_.vocab_size()));
  const std::vector<float> before =
      options.num_logprobs > 0 ? std::vector<float>(logits.begin(), logits.end()) : std::vector<float>();
  const std::vector<int32_t>& ends = options.stop_tokens;
  if (g.grammar_) {
    g.grammar_->mask(*vocabulary_, ends, logits.first(known));
    if (*std::max_element(logits.begin(), logits.begin() + static_cast<ptrdiff_t>(known)) == -INFINITY) {
      result.finish_reason = "grammar";
      return;
    }
  }
  const int32_t token = sample(logits.first(known), result.tokens, options.sampler);
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    result.finish_reason = "stop";
    return;
  }
  result.tokens.push_back(token);
  result.text += tokenizer_.token_bytes(token);
  if (g.grammar_) {
    g.grammar_->accept(tokenizer_.token_bytes(token));
    if (!g.grammar_->can_go_on()) result.finish_reason = "stop";
  }
  if (options.num_logprobs > 0) {
    result.logprobs.push_back({token, before[static_cast<size_t>(token)] - log_total});
    result.top_logprobs.push_back(std::move(top));
  }
  for (const std::string& stop : options.stop) {
    // Only its end is new, but a stop string may span several tokens.
    const size_t from = g.num_shown_ > stop.size() ? g.num_shown_ - stop.size() : 0;
    const size_t at = result.text.find(stop, from);
    if (at == std::string::npos) continue;
    result.text.resize(at);
    result.finish_reason = "stop";
  }
  const size_t num_generated = result.tokens.size() - static_cast<size_t>(result.num_prompt_tokens);
  if (result.finish_reason.empty() && (static_cast<int>(num_generated) >= options.max_tokens ||
                                       static_cast<int>(result.tokens.size()) >= engine_.context_length())) {
    result.finish_reason = "length";
  }
  const size_t shown = result.text.size() - (g.is_finished() ? 0 : held_back(result.text, options.stop));
  if (g.each_ && shown > g.num_shown_) {
    const std::string_view piece = std::string_view(result.text).substr(g.num_shown_, shown - g.num_shown_);
    if (!g.each_(piece)) g.cancel();
  }
  g.num_shown_ = std::max(g.num_shown_, shown);
}

void Batch::keep(Sequence sequence) {
  sequence.replay = nullptr;
  kept_.push_front(std::move(sequence));
  if (kept_.size() > kMostKept) kept_.pop_back();
}

bool Batch::step() {
  const double started = now_s();
  std::vector<Segment> segments;
  std::vector<Generation*> sampled, prefilling;
  int room = static_cast<int>(std::min<int64_t>(pass_tokens_, engine_.most_pass_tokens()));
  for (const auto& g : running_) {
    if (g->is_finished()) continue;
    const std::span<const int32_t> left =
        std::span<const int32_t>(g->result_.tokens).subspan(static_cast<size_t>(g->sequence_.length()));
    if (left.size() == 1) {
      segments.push_back({&g->sequence_, left, Outputs::kLast});
      sampled.push_back(g.get());
    } else if (room > 0) {
      const size_t count = std::min(left.size(), static_cast<size_t>(room));
      room -= static_cast<int>(count);
      const bool is_last = count == left.size();
      segments.push_back({&g->sequence_, left.first(count), is_last ? Outputs::kLast : Outputs::kNone});
      g->result_.num_prefilled_tokens += static_cast<int>(count);
      prefilling.push_back(g.get());
      if (is_last) sampled.push_back(g.get());
    }
  }
  if (!segments.empty()) {
    const std::span<const float> hidden = engine_.forward(segments);
    const size_t vocab = static_cast<size_t>(engine_.vocab_size());
    logits_.resize(std::max(logits_.size(), sampled.size() * vocab));
    engine_.logits(hidden, logits_.data());
    for (size_t i = 0; i < sampled.size(); ++i) {
      try {
        take_token(*sampled[i], {&logits_[i * vocab], vocab});
      } catch (const Error& e) {
        sampled[i]->result_.error = e;
        sampled[i]->result_.finish_reason = "error";
      }
    }
    const double seconds = now_s() - started;
    for (const Segment& segment : segments) {
      const auto g = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& r) { return &r->sequence_ == segment.sequence; });
      const bool is_prefill = std::find(prefilling.begin(), prefilling.end(), g->get()) != prefilling.end();
      (is_prefill ? (*g)->result_.prefill_seconds : (*g)->result_.decode_seconds) += seconds;
    }
  }
  for (auto it = running_.begin(); it != running_.end();) {
    Generation& g = **it;
    if (!g.is_finished()) {
      ++it;
      continue;
    }
    g.result_.route = g.sequence_.route;
    keep(std::move(g.sequence_));
    it = running_.erase(it);
  }
  return !running_.empty();
}

Generated generate(Engine& engine, const Tokenizer& tokenizer, const std::string& prompt,
                   const GenerateOptions& options, const std::function<bool(std::string_view)>& each) {
  Batch batch(engine, tokenizer);
  const std::shared_ptr<Generation> generation = batch.add(prompt_tokens(tokenizer, prompt), options, each);
  while (batch.step()) {
  }
  if (generation->result().error) throw *generation->result().error;
  return generation->result();
}

}  // namespace tessera::engine
