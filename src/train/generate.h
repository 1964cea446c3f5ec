// Text from a LibTorch model, token by token. Each token is a forward pass over the whole text so far: simple, and fast
// enough for a look at a small model. The engine will have the fast way.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/route.h"
#include "core/tokenizer.h"
#include "train/model.h"

namespace tessera {

struct GenerateOptions {
  int max_tokens = 64;
  double temperature = 0.8;  // 0: the most probable token
  double top_p = 0.95;
  uint64_t seed = 1;
  std::vector<uint8_t> allowed_domains;  // [M], empty: all
};

struct Generated {
  std::vector<int32_t> tokens;  // bos, prompt, continuation
  int num_prompt_tokens = 0;    // bos included
  std::string text;             // of the continuation
  Route route;                  // of `tokens` but the last
  double seconds = 0;
};

// Stops at max_tokens, at the start token (the end of the text), or at the context length. Throws Error{kData} for a
// prompt that is longer than the context. `each` sees every piece of text as it comes (whole UTF-8 characters not
// assured).
Generated generate(const Model& model, const Tokenizer& tokenizer, const std::string& prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& each = {});

}  // namespace tessera
