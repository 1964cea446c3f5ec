// How a conversation becomes tokens: the forms that public chat models were trained on.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer.h"

namespace tessera::chat {

struct Message {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// "chatml": <|im_start|>role\ncontent<|im_end|>\n (SmolLM2, Qwen); "llama3": <|start_header_id|>role<|end_header_id|>;
// "llama2": [INST] content [/INST]; "plain": "User: content\nAssistant:", for models without a template.
class Template {
 public:
  // Recognises the form in the text of a chat_template (Jinja), which is never run; "" is plain.
  explicit Template(std::string_view jinja = "");
  // The template of a model folder (chat_template.jinja).
  static Template of_model(const std::filesystem::path& folder);

  const std::string& form() const { return form_; }
  // Tokens of the conversation up to where the assistant's next answer begins. What the messages say never becomes a
  // special token. Throws Error{kData} for a role that we don't know, or a tokenizer that lacks the form's tokens.
  std::vector<int32_t> render(const Tokenizer& tokenizer, const std::vector<Message>& messages) const;
  // Strings and tokens that end an answer.
  std::vector<std::string> stop_strings() const;
  std::vector<int32_t> stop_tokens(const Tokenizer& tokenizer) const;

 private:
  std::string form_ = "plain", default_system_;
};

}  // namespace tessera::chat
