#include "chat/template.h"

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace tessera::chat {
namespace {

// The id of a special token by its text, -1: the tokenizer has none.
int32_t special_token(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<int32_t> tokens = tokenizer.encode(text, /*parse_special=*/true);
  const bool is_token =
      tokens.size() == 1 && (tokenizer.is_special(tokens[0]) || tokenizer.token_bytes(tokens[0]) == text);
  return is_token ? tokens[0] : -1;
}

// Tokens of text and special tokens in turn; neighbouring texts are encoded as one, as in training.
class TokenWriter {
 public:
  explicit TokenWriter(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void text(std::string_view text) { pending_ += text; }
  void special(const std::string& name) {
    const int32_t token = special_token(tokenizer_, name);
    if (token < 0) {
      throw Error(ErrorCode::kData, "the tokenizer has no token " + name + ", which the model's chat template uses",
                  "take the tokenizer that came with the model");
    }
    flush();
    tokens_.push_back(token);
  }
  std::vector<int32_t> take() {
    flush();
    return std::move(tokens_);
  }

 private:
  void flush() {
    const std::vector<int32_t> encoded = tokenizer_.encode(pending_);
    tokens_.insert(tokens_.end(), encoded.begin(), encoded.end());
    pending_.clear();
  }
  const Tokenizer& tokenizer_;
  std::string pending_;
  std::vector<int32_t> tokens_;
};

// SmolLM2's and Qwen's templates begin a conversation without a system message with one of their own:
// '<|im_start|>system\nTEXT<|im_end|>' as a Jinja string.
std::string default_system_of(std::string_view jinja) {
  const std::string_view begin = "<|im_start|>system\\n", end = "<|im_end|>";
  for (size_t at = jinja.find(begin); at != std::string_view::npos; at = jinja.find(begin, at + 1)) {
    const size_t from = at + begin.size(), to = jinja.find(end, from);
    if (to == std::string_view::npos) return "";
    const std::string_view text = jinja.substr(from, to - from);
    if (!text.empty() && text.find_first_of("'\"{}+\\") == std::string_view::npos) return std::string(text);
  }
  return "";
}

void check_role(const Message& message) {
  if (message.role == "system" || message.role == "user" || message.role == "assistant") return;
  throw Error(ErrorCode::kData, "a message has the role '" + message.role + "'",
              "roles are system, user and assistant");
}

// Without the white space around it, as Llama 2's template has it (an answer's first token begins with a space).
std::string stripped(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n\r\t");
  return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(" \n\r\t") + 1 - begin);
}

void render_llama2(TokenWriter& out, const Tokenizer& tokenizer, const std::vector<Message>& messages) {
  std::string system;
  for (const Message& m : messages) {
    if (m.role == "system") {
      system += "<<SYS>>\n" + m.content + "\n<</SYS>>\n\n";
    } else if (m.role == "user") {
      if (special_token(tokenizer, "<s>") >= 0) out.special("<s>");
      out.text("[INST] " + system + stripped(m.content) + " [/INST]");
      system.clear();
    } else {
      out.text(" " + stripped(m.content) + " ");
      if (special_token(tokenizer, "</s>") >= 0) out.special("</s>");
    }
  }
}

}  // namespace

Template::Template(std::string_view jinja) {
  if (jinja.find("<|im_start|>") != std::string_view::npos) {
    form_ = "chatml";
    default_system_ = default_system_of(jinja);
  } else if (jinja.find("<|start_header_id|>") != std::string_view::npos) {
    form_ = "llama3";
  } else if (jinja.find("[INST]") != std::string_view::npos) {
    form_ = "llama2";
  } else if (!jinja.empty()) {
    log_warn(
        "the model's chat template is none of ChatML, Llama 3, [INST]: \"User:\" and \"Assistant:\" take its place");
  }
}

Template Template::of_model(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "chat_template.jinja";
  return Template(std::filesystem::exists(file) ? read_file(file) : "");
}

std::vector<int32_t> Template::render(const Tokenizer& tokenizer, const std::vector<Message>& messages) const {
  for (const Message& message : messages) check_role(message);
  TokenWriter out(tokenizer);
  if (form_ == "llama2") {
    render_llama2(out, tokenizer, messages);
    return out.take();
  }
  const bool has_system = !messages.empty() && messages[0].role == "system";
  std::vector<Message> all = messages;
  if (!has_system && !default_system_.empty()) all.insert(all.begin(), {"system", default_system_});
  all.push_back({"assistant", ""});  // the answer to come: begun, not ended
  if (form_ == "llama3") out.special("<|begin_of_text|>");
  if (form_ == "plain" && tokenizer.bos() >= 0) out.special(std::string(tokenizer.token_bytes(tokenizer.bos())));
  for (size_t i = 0; i < all.size(); ++i) {
    const bool is_open = i + 1 == all.size();
    if (form_ == "chatml") {
      out.special("<|im_start|>");
      out.text(all[i].role + "\n" + all[i].content);
      if (is_open) break;
      out.special("<|im_end|>");
      out.text("\n");
    } else if (form_ == "llama3") {
      out.special("<|start_header_id|>");
      out.text(all[i].role);
      out.special("<|end_header_id|>");
      out.text("\n\n" + all[i].content);
      if (!is_open) out.special("<|eot_id|>");
    } else {
      const std::string name = all[i].role == "user" ? "User:" : all[i].role == "assistant" ? "Assistant:" : "";
      out.text(name + (is_open ? "" : (name.empty() ? "" : " ") + all[i].content + "\n"));
    }
  }
  return out.take();
}

std::vector<std::string> Template::stop_strings() const {
  return form_ == "plain" ? std::vector<std::string>{"\nUser:"} : std::vector<std::string>{};
}

std::vector<int32_t> Template::stop_tokens(const Tokenizer& tokenizer) const {
  std::vector<int32_t> tokens;
  for (const char* name : {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>"}) {
    if (const int32_t token = special_token(tokenizer, name); token >= 0) tokens.push_back(token);
  }
  return tokens;
}

}  // namespace tessera::chat
