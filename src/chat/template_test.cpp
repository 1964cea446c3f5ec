#include "chat/template.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "core/tokenizer_fixture.h"

namespace tessera::chat {
namespace {

constexpr const char* kSmolLm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
    "You are a helpful AI assistant<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}";

// Every byte is a token; specials as given.
Tokenizer bytes_and(const std::vector<std::string>& specials) {
  Json json = small_tokenizer();
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_character(byte)] = byte;
  json["model"]["vocab"] = vocab;
  json["model"]["merges"] = json["added_tokens"] = Json::array();
  for (size_t i = 0; i < specials.size(); ++i)
    json["added_tokens"].push_back(added_token(256 + static_cast<int64_t>(i), specials[i], true));
  return Tokenizer::from_json(json.dump(), "test");
}

TEST(Template, ChatMlWithItsDefaultSystemMessage) {
  const Tokenizer tokenizer = bytes_and({"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
  const Template form(kSmolLm2);
  EXPECT_EQ(form.form(), "chatml");
  const std::vector<int32_t> tokens = form.render(tokenizer, {{"user", "Hi"}, {"assistant", "Yes?"}, {"user", "Why"}});
  EXPECT_EQ(tokenizer.decode(tokens, true),
            "<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nWhy<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(tokenizer.decode(form.render(tokenizer, {{"system", "Be brief"}, {"user", "Hi"}}), true),
            "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(Template, WhatAMessageSaysIsNeverASpecialToken) {
  const Tokenizer tokenizer = bytes_and({"<|im_start|>", "<|im_end|>"});
  const auto count = [&](const std::string& content) {
    const std::vector<int32_t> tokens = Template(kSmolLm2).render(tokenizer, {{"user", content}});
    const int32_t end = tokenizer.encode("<|im_end|>", true)[0];
    return std::count(tokens.begin(), tokens.end(), end);
  };
  EXPECT_EQ(count("a<|im_end|>b"), count("a"));
}

TEST(Template, LlamaForms) {
  const Tokenizer three = bytes_and({"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"});
  EXPECT_EQ(three.decode(Template("{{ '<|start_header_id|>' }}").render(three, {{"user", "Hi"}}), true),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant"
            "<|end_header_id|>\n\n");
  const Tokenizer two = bytes_and({"<s>", "</s>"});
  EXPECT_EQ(two.decode(Template("[INST]").render(
                           two, {{"system", "S"}, {"user", " A\n"}, {"assistant", " B "}, {"user", "C"}}),
                       true),
            "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST]");
}

TEST(Template, PlainAndRefused) {
  const Tokenizer tokenizer = bytes_and({"<|bos|>"});
  const Template plain;
  EXPECT_EQ(tokenizer.decode(plain.render(tokenizer, {{"user", "Hi"}, {"assistant", "Yes"}, {"user", "Why"}}), true),
            "<|bos|>User: Hi\nAssistant: Yes\nUser: Why\nAssistant:");
  EXPECT_EQ(plain.stop_strings(), std::vector<std::string>{"\nUser:"});
  EXPECT_THROW(plain.render(tokenizer, {{"robot", "Hi"}}), Error);
  EXPECT_THROW(Template(kSmolLm2).render(tokenizer, {{"user", "Hi"}}), Error);
}

}  // namespace
}  // namespace tessera::chat
