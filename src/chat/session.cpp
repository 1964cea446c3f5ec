#include "chat/session.h"

#include <algorithm>

#include "base/error.h"

namespace tessera::chat {

Session::Session(engine::Engine& engine, const Tokenizer& tokenizer, Template form, engine::GenerateOptions options)
    : engine_(engine),
      tokenizer_(tokenizer),
      form_(std::move(form)),
      options_(std::move(options)),
      batch_(engine, tokenizer) {
  for (const std::string& stop : form_.stop_strings()) options_.stop.push_back(stop);
  for (int32_t token : form_.stop_tokens(tokenizer)) options_.stop_tokens.push_back(token);
}

void Session::set_system(const std::string& text) {
  messages_.clear();
  num_dropped_turns_ = 0;
  if (!text.empty()) messages_.push_back({"system", text});
}

void Session::clear() {
  const bool has_system = !messages_.empty() && messages_[0].role == "system";
  messages_.resize(has_system ? 1 : 0);
  num_dropped_turns_ = 0;
}

const engine::Generated& Session::ask(const std::string& text, const std::function<bool(std::string_view)>& each) {
  const std::vector<Message> before = messages_;
  const int dropped_before = num_dropped_turns_;
  messages_.push_back({"user", text});
  std::vector<int32_t> tokens = form_.render(tokenizer_, messages_);
  // Room for an answer: what was asked for, at most half of the context.
  const int context = engine_.context_length(), room = std::min(options_.max_tokens, context / 2);
  const size_t first = messages_[0].role == "system" ? 1 : 0;
  while (static_cast<int>(tokens.size()) + room > context && messages_.size() > first + 2) {
    messages_.erase(messages_.begin() + static_cast<int64_t>(first),
                    messages_.begin() + static_cast<int64_t>(first) + 2);
    ++num_dropped_turns_;
    tokens = form_.render(tokenizer_, messages_);
  }
  try {
    const auto generation = batch_.add(std::move(tokens), options_, each);
    while (batch_.step()) {
    }
    if (generation->result().error) throw *generation->result().error;
    last_ = generation->result();
  } catch (...) {
    messages_ = before;
    num_dropped_turns_ = dropped_before;
    throw;
  }
  messages_.push_back({"assistant", last_.text});
  return last_;
}

}  // namespace tessera::chat
