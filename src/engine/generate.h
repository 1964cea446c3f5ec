// Text from a model: continuous batching of any number of texts, one forward pass a step. A text's tokens don't depend
// on what else is in the batch.
#pragma once
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "core/tokenizer.h"
#include "engine/engine.h"
#include "engine/grammar.h"
#include "engine/sampler.h"

namespace tessera::engine {

struct GenerateOptions {
  int max_tokens = 64;
  SamplerOptions sampler;
  std::vector<std::string> stop;           // the text ends before the first of these
  std::vector<int32_t> stop_tokens;        // beside the start token, which always ends a text
  std::shared_ptr<const Grammar> grammar;  // the continuation is a text of it, or the beginning of one
  int num_logprobs = 0;                    // the most probable tokens reported for each generated one; 0: none
  bool records_route = true;
};

struct TokenLogprob {
  int32_t token;
  float logprob;  // natural, of the model's distribution (before temperature and penalty)
};

struct Generated {
  std::vector<int32_t> tokens;         // start token, prompt, continuation
  int num_prompt_tokens = 0;           // start token included
  std::string text;                    // of the continuation
  std::string finish_reason;           // "length", "stop", "cancelled", "grammar" when no token goes on with it,
                                       // or "error"; empty while it runs
  std::optional<Error> error;          // what ended this text alone: a grammar that is too ambiguous
  Route route;                         // of `tokens` but the last
  std::vector<TokenLogprob> logprobs;  // of the continuation
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // num_logprobs of each
  double prefill_seconds = 0, decode_seconds = 0;
  int num_prefilled_tokens = 0;  // prompt tokens that were run, not taken over from another text
};

// A text on its way. `each` sees every piece of text as it comes (whole UTF-8 characters not assured); what could be
// the beginning of a stop string is held back. It gives false to cancel.
class Generation {
 public:
  const Generated& result() const { return result_; }
  const Route& route() const { return result_.route.num_tokens > 0 ? result_.route : sequence_.route; }  // so far
  bool is_finished() const { return !result_.finish_reason.empty(); }
  void cancel() {
    if (!is_finished()) result_.finish_reason = "cancelled";
  }

 private:
  friend class Batch;
  Generated result_;
  GenerateOptions options_;
  std::function<bool(std::string_view)> each_;
  Sequence sequence_;
  std::unique_ptr<GrammarState> grammar_;
  size_t num_shown_ = 0;  // bytes of the text
};

class Batch {
 public:
  // Both outlive the batch. At most `pass_tokens` prompt tokens are run in one pass, beside the texts in progress.
  Batch(Engine& engine, const Tokenizer& tokenizer, int pass_tokens = 256)
      : engine_(engine), tokenizer_(tokenizer), pass_tokens_(pass_tokens) {}

  // `tokens` begin with the start token where the model has one. The longest beginning that a text kept from before
  // shares is taken over. Throws Error{kData} for a prompt that is empty or longer than the context, Error{kUsage} for
  // sampler options out of range.
  std::shared_ptr<Generation> add(std::vector<int32_t> tokens, GenerateOptions options,
                                  std::function<bool(std::string_view)> each = {});
  // One pass over all texts in progress; false: there is none.
  bool step();

 private:
  void take_token(Generation& generation, std::span<float> logits_V);
  void keep(Sequence sequence);

  Engine& engine_;
  const Tokenizer& tokenizer_;
  int pass_tokens_;
  std::vector<std::shared_ptr<Generation>> running_;
  std::list<Sequence> kept_;  // of finished texts, the newest first
  std::vector<float> logits_;
  std::unique_ptr<SortedVocabulary> vocabulary_;  // made for the first text with a grammar
};

// The start token, where the tokenizer has one, and the prompt.
std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt, bool parse_special = false);

// One text to its end. Throws its error.
Generated generate(Engine& engine, const Tokenizer& tokenizer, const std::string& prompt,
                   const GenerateOptions& options, const std::function<bool(std::string_view)>& each = {});

}  // namespace tessera::engine
