#include "data/multiple_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "core/tokenizer_fixture.h"

namespace tessera {
namespace {

Document cross(std::string text) { return {.text = std::move(text), .domain = "cross", .source = "vignette"}; }

std::vector<ChoiceCandidate> of_task(const Document& document, int task) {
  std::vector<ChoiceCandidate> found = find_choice_candidates(document);
  std::erase_if(found, [&](const ChoiceCandidate& c) { return c.task != task; });
  return found;
}

TEST(ChoiceCandidates, DocstringAndBody) {
  const Document document = cross(
      "def area(radius,\n         scale):\n    \"\"\"Gives the area of a circle with that radius.\n    \"\"\"\n"
      "    squared = radius * radius * scale\n    return 3.14159 * squared\n\ndef next(): pass\n");
  const auto found = of_task(document, 0);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].form, "python-4");
  EXPECT_NE(found[0].context.find("area of a circle"), std::string::npos);
  EXPECT_EQ(found[0].answer, "    squared = radius * radius * scale\n    return 3.14159 * squared");
}

TEST(ChoiceCandidates, CommentAndCode) {
  const Document document = {.text =
                                 "// Adds one to the counter of this thing.\nfunc (c *Counter) add() int {\n"
                                 "\tc.value++\n\treturn c.value\n}\n\nfunc other() {}\n",
                             .domain = "code",
                             .source = "go"};
  const auto found = of_task(document, 0);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].answer, "func (c *Counter) add() int {\n\tc.value++\n\treturn c.value\n}");
}

TEST(ChoiceCandidates, ProseAndCode) {
  const std::string prose = "We fit the linear model to the data and look at the estimated coefficients it gives:";
  const auto found = of_task(cross(prose + "\n\nfit <- lm(y ~ x, data = cars)\nsummary(fit)$coefficients\n\nAs one "
                                           "can see, the slope is far from zero in this example.\n"),
                             1);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].context, prose + "\n\n");
  EXPECT_EQ(found[0].answer, "fit <- lm(y ~ x, data = cars)\nsummary(fit)$coefficients");
  // Prose behind prose is no answer, and code behind code has no question.
  EXPECT_TRUE(of_task(cross(prose + "\n\n" + prose), 1).empty());
  EXPECT_TRUE(
      of_task(cross("x <- c(1, 2)\nlibrary(lme4)\n\nfit <- lm(y ~ x, data = cars)\nsummary(fit)\n"), 1).empty());
}

TEST(ChoiceCandidates, TextAndFormula) {
  const std::string text =
      "The estimate of the variance is the mean of the squared residuals of the model, which is written as ";
  const auto inline_one = of_task(cross(text + "$\\hat\\sigma^2 = S / n$ in what follows."), 2);
  ASSERT_EQ(inline_one.size(), 1u);
  EXPECT_EQ(inline_one[0].answer, "\\hat\\sigma^2 = S / n$");
  EXPECT_TRUE(inline_one[0].context.ends_with("written as $"));
  const auto displayed = of_task(cross(text + "\n\\begin{equation}\n  \\sigma^2 = S / (n - p)\n\\end{equation}\n"), 2);
  ASSERT_EQ(displayed.size(), 1u);
  EXPECT_EQ(displayed[0].answer, "  \\sigma^2 = S / (n - p)");
  EXPECT_TRUE(of_task(cross(text + "clouds$rain_fall and sea$depth_mean are columns."), 2).empty());
}

std::vector<Document> many_formulas() {
  std::vector<Document> documents;
  for (int i = 0; i < 60; ++i) {
    documents.push_back(cross("Here we write about the quantity that has the number " + std::to_string(i) +
                              " in the list of all of them, and that is $\\theta_{" + std::to_string(i) +
                              "} = x^2 + y^2$ as before."));
  }
  return documents;
}

TEST(ChoiceItems, FourDifferentAnswersOfTheSameSourceAndLength) {
  std::vector<Document> documents = many_formulas();
  documents.push_back({.text = documents[0].text, .domain = "cross", .source = "lonely"});
  const std::vector<ChoiceItem> items = make_choice_items(documents, 25);
  ASSERT_EQ(items.size(), 25u);
  std::set<int> places;
  for (const ChoiceItem& item : items) {
    EXPECT_EQ(item.source, "vignette");  // the lonely one has no wrong answers
    EXPECT_EQ(std::set<std::string>(item.answers.begin(), item.answers.end()).size(), 4u);
    const double right = static_cast<double>(item.answers[static_cast<size_t>(item.right)].size());
    for (const std::string& answer : item.answers)
      EXPECT_LE(std::abs(static_cast<double>(answer.size()) - right), 0.2 * right);
    places.insert(item.right);
  }
  EXPECT_EQ(places.size(), 4u);  // the right one isn't always in the same place
  std::reverse(documents.begin(), documents.end());
  const std::vector<ChoiceItem> again = make_choice_items(documents, 25);
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(again[i].context, items[i].context);
    EXPECT_EQ(again[i].answers, items[i].answers);
  }
}

// Likes a text the better, a token, the more often byte 'z' occurs in it; tokens are bytes.
class LikesZ : public Scorer {
 public:
  explicit LikesZ(int32_t z, int vocab) : z_(z), vocab_(vocab) {}
  int vocab_size() const override { return vocab_; }
  int context_length() const override { return 64; }
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int>,
                                std::span<const Route>) override {
    std::vector<ScoredText> scored;
    for (const auto& text : texts) {
      EXPECT_LE(text.size(), 64u);
      ScoredText& one = scored.emplace_back();
      for (size_t t = 1; t < text.size(); ++t) one.log_probs.push_back(text[t] == z_ ? -2.0f : -3.0f);
    }
    return scored;
  }

 private:
  int32_t z_;
  int vocab_;
};

TEST(ChoiceItems, AnswersAreJudgedByTheByteBehindTheContext) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small tokenizer");
  const int32_t z = tokenizer.encode("z").at(0);
  LikesZ scorer(z, tokenizer.vocab_size());
  // The longer answer has more nats in all, but fewer a byte; the context's z must not count.
  const ChoiceItem right = {0, "s", std::string(200, 'z'), {"cccc", "cccd", "czzzzz", "ccdd"}, 2};
  const ChoiceItem wrong = {2, "s", "q", {"zzzz", "cccd", "cdcd", "ccdd"}, 1};
  const std::vector<ChoiceItem> items = {right, wrong};
  const ChoiceResults results = answer_choices(scorer, tokenizer, items);
  EXPECT_EQ(results.correct, (std::vector<uint8_t>{1, 0}));
  EXPECT_DOUBLE_EQ(accuracy(items, results.correct, 0), 1);
  EXPECT_DOUBLE_EQ(accuracy(items, results.correct, 1), 0);
  EXPECT_DOUBLE_EQ(mean_accuracy(items, results.correct), 0.5);  // of the two tasks that have items
}

// Likes "x" in any text; behind a context with "q" it likes "z" a little more than without.
class LikesXAndZBehindQ : public LikesZ {
 public:
  LikesXAndZBehindQ(const Tokenizer& tokenizer)
      : LikesZ(0, tokenizer.vocab_size()),
        x_(tokenizer.encode("x")[0]),
        z_(tokenizer.encode("z")[0]),
        q_(tokenizer.encode("q")[0]) {}
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int>,
                                std::span<const Route>) override {
    std::vector<ScoredText> scored;
    for (const auto& text : texts) {
      const bool has_q = std::find(text.begin(), text.end(), q_) != text.end();
      ScoredText& one = scored.emplace_back();
      for (size_t t = 1; t < text.size(); ++t)
        one.log_probs.push_back(text[t] == x_ ? -1.0f : text[t] == z_ && has_q ? -4.0f : -5.0f);
    }
    return scored;
  }

 private:
  int32_t x_, z_, q_;
};

TEST(ChoiceItems, AUsualAnswerWinsByLogProbabilityAndOneThatTheContextHelpsByGain) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small tokenizer");
  LikesXAndZBehindQ scorer(tokenizer);
  const std::vector<ChoiceItem> items = {{0, "s", "q", {"cccc", "zzzz", "xxxx", "ccdd"}, 1}};
  const ChoiceResults results = answer_choices(scorer, tokenizer, items);
  EXPECT_EQ(results.correct, std::vector<uint8_t>{0});
  EXPECT_EQ(results.correct_by_gain, std::vector<uint8_t>{1});
}

}  // namespace
}  // namespace tessera
