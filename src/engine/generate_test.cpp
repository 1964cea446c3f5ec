// Sampling and batches: a text depends on its seed alone, not on threads or on what else is in the batch.
#include "engine/generate.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "core/tokenizer_fixture.h"
#include "engine/random_model.h"

namespace tessera::engine {
namespace {

Architecture with_vocabulary(int size) {
  Architecture a = tiny_architecture();
  a.trunk.vocab_size = size;
  return a;
}

class Generate : public ::testing::Test {
 protected:
  Generate()
      : folder_(write_random_model(with_vocabulary(265), "generate")),
        tokenizer_(Tokenizer::from_json(small_tokenizer().dump(), "small")) {}
  GenerateOptions options(uint64_t seed, int max_tokens = 40) const {
    GenerateOptions options;
    options.max_tokens = max_tokens;
    options.sampler.seed = seed;
    options.sampler.temperature = 1.3;
    options.sampler.repetition_penalty = 1.1;
    return options;
  }
  std::filesystem::path folder_;
  Tokenizer tokenizer_;
};

TEST_F(Generate, ATextIsTheSameAloneAndInABatchOnAnyThreads) {
  Engine one(open_model(folder_), {1}), two(open_model(folder_), {2});
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 5; ++i) prompts.push_back(random_tokens(3 + 31 * i, 60, static_cast<uint64_t>(i)));
  Batch batch(two, tokenizer_, 50);
  std::vector<std::shared_ptr<Generation>> together;
  for (size_t i = 0; i < prompts.size(); ++i) {
    together.push_back(batch.add(prompts[i], options(i)));
    batch.step();
  }
  while (batch.step()) {
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    Batch alone(one, tokenizer_);
    const auto generation = alone.add(prompts[i], options(i));
    while (alone.step()) {
    }
    EXPECT_EQ(together[i]->result().tokens, generation->result().tokens);
    EXPECT_EQ(to_json(together[i]->result().route), to_json(generation->result().route));
  }
  EXPECT_NE(together[0]->result().text, together[1]->result().text);
}

TEST_F(Generate, APromptThatBeginsLikeAnEarlierTextIsTakenOver) {
  Engine engine(open_model(folder_), {1});
  const std::vector<int32_t> prompt = random_tokens(100, 60, 9);
  Batch batch(engine, tokenizer_);
  const auto first = batch.add(prompt, options(1));
  while (batch.step()) {
  }
  const auto second = batch.add(prompt, options(1));
  while (batch.step()) {
  }
  EXPECT_EQ(first->result().num_prefilled_tokens, 100);
  EXPECT_EQ(second->result().num_prefilled_tokens, 36);  // 64 were taken over
  EXPECT_EQ(first->result().tokens, second->result().tokens);
  EXPECT_EQ(to_json(first->result().route), to_json(second->result().route));
}

TEST_F(Generate, StopStringsCutTheTextAndAreNeverShown) {
  Engine engine(open_model(folder_), {1});
  const std::string whole = generate(engine, tokenizer_, "ABC", options(2)).text;
  ASSERT_GT(whole.size(), 12u);
  GenerateOptions with_stop = options(2);
  with_stop.stop = {"never there", whole.substr(6, 3)};
  std::string shown;
  const Generated cut = generate(engine, tokenizer_, "ABC", with_stop, [&](std::string_view piece) {
    shown += piece;
    return true;
  });
  EXPECT_EQ(cut.text, whole.substr(0, whole.find(with_stop.stop[1])));
  EXPECT_EQ(shown, cut.text);
  EXPECT_EQ(cut.finish_reason, "stop");
}

TEST_F(Generate, CancelAndLength) {
  Engine engine(open_model(folder_), {1});
  int pieces = 0;
  const Generated cancelled =
      generate(engine, tokenizer_, "A", options(1), [&](std::string_view) { return ++pieces < 3; });
  EXPECT_EQ(cancelled.finish_reason, "cancelled");
  EXPECT_EQ(cancelled.tokens.size(), 2u + 3u);
  EXPECT_EQ(generate(engine, tokenizer_, "A", options(1, 5)).finish_reason, "length");
  EXPECT_THROW(generate(engine, tokenizer_, std::string(400, 'A'), options(1)), Error);
}

TEST_F(Generate, LogprobsAreThoseOfTheModel) {
  Engine engine(open_model(folder_), {1});
  GenerateOptions greedy = options(1, 4);
  greedy.sampler.temperature = 0;
  greedy.sampler.repetition_penalty = 1;
  greedy.num_logprobs = 265;
  const Generated g = generate(engine, tokenizer_, "AB", greedy);
  ASSERT_EQ(g.logprobs.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(g.top_logprobs[i][0].token, g.logprobs[i].token);
    double sum = 0;
    for (const TokenLogprob& t : g.top_logprobs[i]) sum += std::exp(static_cast<double>(t.logprob));
    EXPECT_NEAR(sum, 1.0, 1e-4);
  }
}

TEST(Sampler, ValuesOutOfRangeAreRefused) {
  const auto refuses = [](auto SamplerOptions::*option, double value) {
    SamplerOptions options;
    options.*option = value;
    EXPECT_THROW(check(options), Error) << value;
  };
  check(SamplerOptions{});
  for (const double wrong : {-0.1, 101.0, std::nan(""), HUGE_VAL}) refuses(&SamplerOptions::temperature, wrong);
  for (const double wrong : {-0.1, 1.1, std::nan("")}) {
    refuses(&SamplerOptions::top_p, wrong);
    refuses(&SamplerOptions::min_p, wrong);
  }
  for (const double wrong : {0.0, std::nan("")}) refuses(&SamplerOptions::repetition_penalty, wrong);
}

TEST(Sampler, KeepsOnlyWhatItShould) {
  const std::vector<float> logits = {0.0f, 3.0f, 2.0f, 2.9f, -5.0f, 1.0f};
  const auto drawn = [&](SamplerOptions options) {
    std::set<int32_t> tokens;
    for (uint64_t seed = 0; seed < 400; ++seed) {
      std::vector<float> copy = logits;
      options.seed = seed;
      tokens.insert(sample(copy, std::vector<int32_t>{1}, options));
    }
    return tokens;
  };
  EXPECT_EQ(drawn({.temperature = 0}), (std::set<int32_t>{1}));
  EXPECT_EQ(drawn({.temperature = 1, .top_k = 2, .top_p = 1}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 0.5}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 1, .min_p = 0.3}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(drawn({.temperature = 0, .repetition_penalty = 2}), (std::set<int32_t>{3}));
  EXPECT_GE(drawn({.temperature = 5, .top_p = 1}).size(), 5u);
}

}  // namespace
}  // namespace tessera::engine
