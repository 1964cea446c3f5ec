// What a grammar lets through, byte by byte and token by token.
#include "engine/grammar.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "core/tokenizer_fixture.h"
#include "engine/generate.h"
#include "engine/random_model.h"

namespace tessera::engine {
namespace {

bool matches(const Grammar& grammar, std::string_view text) {
  GrammarState state(std::make_shared<const Grammar>(grammar));
  return state.accept(text) && state.is_complete();
}

TEST(Grammar, MatchesWhatItsNotationSays) {
  struct Case {
    const char* grammar;
    std::vector<std::string> right, wrong;
  };
  const Case cases[] = {
      {"root ::= \"a\" | \"bc\"", {"a", "bc"}, {"", "b", "ab", "abc"}},
      {"root ::= [a-c]+ [^a-c]", {"ad", "abc\xC3\xA9", "a\xF0\x9F\x98\x80"}, {"d", "abc", "ad\x80", "a\xC3"}},
      {"root ::= \"x\"{2,3} \"y\"?", {"xx", "xxx", "xxxy"}, {"x", "xxxx", "xyy"}},
      {"root ::= \"x\"{2} \"z\"{1,}", {"xxz", "xxzz"}, {"xx", "xxx", "xz"}},
      {"root ::= \"(\" root? \")\"  # nested", {"()", "((()))"}, {"(()", "())", ""}},
      {"root ::= ( word\n  | number ) end\nend ::= \".\"\nword ::= [a-z]+\nnumber ::= [0-9]+\n",
       {"ab.", "12."},
       {"a1.", "."}},
      {"root ::= [\\u4e00-\\u9fff] . \"\\n\\x41\\\"\"",
       {"\xE4\xB8\x80!\nA\"", "\xE9\xBF\xBF\xC3\xA9\nA\""},
       {"a!\nA\""}},
      {"root ::= (\"a\"?){0,40} \"b\"", {"b", "aaab", std::string(40, 'a') + "b"}, {std::string(41, 'a') + "b", "a"}},
      {"root ::= [\\]\\-^a]*", {"]-^a", ""}, {"b", "\\"}},
  };
  for (const Case& c : cases) {
    const Grammar grammar = Grammar::parse(c.grammar, "test");
    for (const std::string& text : c.right) EXPECT_TRUE(matches(grammar, text)) << c.grammar << " / " << text;
    for (const std::string& text : c.wrong) EXPECT_FALSE(matches(grammar, text)) << c.grammar << " / " << text;
  }
}

// Every character, and no other bytes.
TEST(Grammar, AnyCharacterIsOneOfUtf8) {
  const Grammar any = Grammar::parse("root ::= .", "test");
  for (const char* text : {"\x01", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_TRUE(matches(any, text)) << text;
  for (const char* text :
       {"\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80"})
    EXPECT_FALSE(matches(any, text)) << text;
}

TEST(Grammar, JsonIsJson) {
  const Grammar json = Grammar::json();
  for (const char* text :
       {"{}", "[1, -0.5e+3,\"a\\u00e9\\n\"]", "{\"a\": {\"b\": [true,false,null]}}", "\"\xC3\xA9\"", "0"})
    EXPECT_TRUE(matches(json, text)) << text;
  for (const char* text : {"{", "[1,]", "{\"a\"}", "{a: 1}", "01", "\"\n\"", "tru", "nullx"})
    EXPECT_FALSE(matches(json, text)) << text;
}

TEST(Grammar, AMalformedOneIsRefusedAndSaysWhere) {
  std::string deep = "root ::= ", large = deep;
  for (int i = 0; i < 300; ++i) deep += "(";
  for (int i = 0; i < 11; ++i) large += "\"aaaaaaaaaa\"{9999} ";
  const std::pair<std::string, const char*> cases[] = {
      {"", "root"},
      {"root = \"a\"", "::="},
      {"root ::= other", "other"},
      {"root ::= \"a", "doesn't end"},
      {"root ::= [a", "doesn't end"},
      {"root ::= [b-a]", "backwards"},
      {"root ::= []", "without characters"},
      {"root ::= ( \"a\"", "')'"},
      {"root ::= \"a\" )", "end of the rule"},
      {"root ::= \"\\q\"", "\\q"},
      {"root ::= \"\\xZZ\"", "hexadecimal"},
      {"root ::= \"\\U99999999\"", "U+10FFFF"},
      {"root ::= \"a\"{3,2}", "less"},
      {"root ::= \"a\"{99999999}", "10,000"},
      {large, "million"},
      {"root ::= root \"a\" | \"b\"", "left recursion"},
      {"root ::= a\na ::= b? a2\na2 ::= a\nb ::= \"b\"", "left recursion"},
      {"root ::= (\"a\"?)*", "left recursion"},
      {"root ::= \"a\"\nroot ::= \"b\"", "twice"},
      {"root ::= \"\xFF\"", "UTF-8"},
      {deep, "200"},
  };
  for (const auto& [text, expected] : cases) {
    try {
      Grammar::parse(text, "test");
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(expected), std::string::npos) << text << " / " << e.what();
    }
  }
}

// An empty repetition of many is a long chain of rules: no recursion of ours may follow it.
TEST(Grammar, LongEmptyChainsAndAmbiguityAreBounded) {
  EXPECT_TRUE(matches(Grammar::parse("root ::= (\"a\"?){0,2000} \"b\"", "test"), "b"));
  const Grammar ambiguous = Grammar::parse("root ::= (\"a\"?){0,5000} (\"a\"?){0,5000} \"b\"", "test");
  EXPECT_THROW(matches(ambiguous, "ab"), Error);
}

TEST(Grammar, MaskKeepsExactlyTheTokensThatGoOn) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small");
  const SortedVocabulary vocabulary(tokenizer);
  const auto grammar = std::make_shared<const Grammar>(Grammar::parse("root ::= \"the \" [a-h]+ | [0-9]{2}", "test"));
  for (const char* beginning : {"", "t", "the ", "the cab", "4", "42"}) {
    GrammarState state(grammar);
    ASSERT_TRUE(state.accept(beginning));
    std::vector<float> logits(static_cast<size_t>(tokenizer.vocab_size()), 1.0f);
    const int32_t ends[] = {tokenizer.bos()};
    state.mask(vocabulary, ends, logits);
    for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
      const std::string bytes = tokenizer.decode({&token, 1});
      GrammarState longer(grammar);
      longer.accept(beginning);
      const bool allowed = token == tokenizer.bos() ? state.is_complete() : !bytes.empty() && longer.accept(bytes);
      EXPECT_EQ(std::isfinite(logits[static_cast<size_t>(token)]), allowed) << beginning << " + " << bytes;
    }
  }
}

TEST(Grammar, GeneratedTextIsOfTheGrammarAndTheBatchDoesNotMatter) {
  Architecture a = tiny_architecture();
  a.trunk.vocab_size = 265;
  Engine engine(open_model(write_random_model(a, "grammar")), {});
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small");
  GenerateOptions options;
  options.sampler.temperature = 2;
  options.grammar =
      std::make_shared<const Grammar>(Grammar::parse("root ::= \"{\" [a-z]{3,5} (\", \" [0-9]+){2} \"}\"", "test"));
  Batch batch(engine, tokenizer);
  std::vector<std::shared_ptr<Generation>> texts;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    options.sampler.seed = seed;
    texts.push_back(batch.add(prompt_tokens(tokenizer, "a"), options));
  }
  GenerateOptions free = options;
  free.grammar = nullptr;
  batch.add(prompt_tokens(tokenizer, "b"), free);
  GenerateOptions ambiguous = options;
  ambiguous.grammar =
      std::make_shared<const Grammar>(Grammar::parse("root ::= [a-z] (\"a\"?){0,5000} (\"a\"?){0,5000} \"b\"", "test"));
  const auto failing = batch.add(prompt_tokens(tokenizer, "c"), ambiguous);
  while (batch.step()) {
  }
  EXPECT_EQ(failing->result().finish_reason, "error");  // its own alone
  EXPECT_THROW(generate(engine, tokenizer, "c", ambiguous), Error);
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Generated& result = texts[seed - 1]->result();
    if (result.finish_reason == "stop") EXPECT_TRUE(matches(*options.grammar, result.text)) << result.text;
    GrammarState state(options.grammar);
    EXPECT_TRUE(state.accept(result.text)) << result.text;
    options.sampler.seed = seed;
    EXPECT_EQ(generate(engine, tokenizer, "a", options).text, result.text);
  }
}

}  // namespace
}  // namespace tessera::engine
