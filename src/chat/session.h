// A conversation with a model: what was said, and the next answer.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "chat/template.h"
#include "engine/generate.h"

namespace tessera::chat {

class Session {
 public:
  // All outlive the session.
  Session(engine::Engine& engine, const Tokenizer& tokenizer, Template form, engine::GenerateOptions options);

  // Says `text` as the user and gives the answer; `each` sees it as it comes and gives false to stop it (what came is
  // kept). When the conversation outgrows the context, its oldest turns are left out. Throws Error{kData} for a text
  // that alone is longer than the context.
  const engine::Generated& ask(const std::string& text, const std::function<bool(std::string_view)>& each = {});
  void set_system(const std::string& text);  // "" removes it; begins the conversation anew
  void clear();
  int num_dropped_turns() const { return num_dropped_turns_; }
  engine::GenerateOptions& options() { return options_; }
  const engine::Generated& last() const { return last_; }

 private:
  engine::Engine& engine_;
  const Tokenizer& tokenizer_;
  Template form_;
  engine::GenerateOptions options_;
  engine::Batch batch_;  // keeps the conversation's keys and values from turn to turn
  std::vector<Message> messages_;
  engine::Generated last_;
  int num_dropped_turns_ = 0;
};

}  // namespace tessera::chat
