#include "data/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/rng.h"

namespace tessera {

std::vector<ChoiceItem> make_choice_items(std::span<const Document> documents, int items_a_task, uint64_t seed) {
  std::vector<ChoiceCandidate> all;
  for (const Document& document : documents) {
    for (ChoiceCandidate& candidate : find_choice_candidates(document)) all.push_back(std::move(candidate));
  }
  // The order of a hash: a draw that depends on the text alone. Twins fall together, one stays.
  std::vector<std::pair<std::string, size_t>> order;
  for (size_t i = 0; i < all.size(); ++i)
    order.emplace_back(hash_hex(all[i].source + '\0' + all[i].context + '\0' + all[i].answer), i);
  std::sort(order.begin(), order.end());
  order.erase(std::unique(order.begin(), order.end(), [](auto& a, auto& b) { return a.first == b.first; }),
              order.end());
  std::map<std::pair<std::string, std::string>, std::vector<size_t>> pools;  // by (source, form), in the drawn order
  for (const auto& [hash, i] : order) pools[{all[i].source, all[i].form}].push_back(i);

  std::vector<std::vector<ChoiceItem>> by_task(kChoiceTasks.size());
  for (const auto& [hash, i] : order) {
    const ChoiceCandidate& candidate = all[i];
    std::vector<ChoiceItem>& items = by_task[static_cast<size_t>(candidate.task)];
    if (static_cast<int>(items.size()) >= items_a_task) continue;
    const double length = static_cast<double>(candidate.answer.size());
    std::vector<const std::string*> others;
    for (size_t j : pools.at({candidate.source, candidate.form})) {
      const std::string& answer = all[j].answer;
      const bool near = std::abs(static_cast<double>(answer.size()) - length) <= 0.2 * length;
      const auto same = [&](const std::string* other) { return *other == answer; };
      if (!near || answer == candidate.answer || candidate.context.find(answer) != std::string::npos ||
          std::any_of(others.begin(), others.end(), same))
        continue;
      others.push_back(&answer);
    }
    if (others.size() < kNumChoices - 1) continue;
    Rng rng(seed, std::stoull(hash, nullptr, 16));
    for (size_t n = 0; n < kNumChoices - 1; ++n) std::swap(others[n], others[n + rng.below(others.size() - n)]);
    ChoiceItem item{candidate.task, candidate.source, candidate.context, {}, static_cast<int>(rng.below(kNumChoices))};
    size_t next = 0;
    for (int c = 0; c < kNumChoices; ++c)
      item.answers[static_cast<size_t>(c)] = c == item.right ? candidate.answer : *others[next++];
    items.push_back(std::move(item));
  }
  std::vector<ChoiceItem> items;
  for (auto& of_task : by_task) std::move(of_task.begin(), of_task.end(), std::back_inserter(items));
  return items;
}

double accuracy(std::span<const ChoiceItem> items, std::span<const uint8_t> correct, int task) {
  int64_t count = 0, right = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].task != task) continue;
    ++count;
    right += correct[i];
  }
  return count ? static_cast<double>(right) / static_cast<double>(count) : 0.0;
}

double mean_accuracy(std::span<const ChoiceItem> items, std::span<const uint8_t> correct) {
  double sum = 0;
  int tasks = 0;
  for (int task = 0; task < static_cast<int>(kChoiceTasks.size()); ++task) {
    if (std::none_of(items.begin(), items.end(), [&](const ChoiceItem& item) { return item.task == task; })) continue;
    sum += accuracy(items, correct, task);
    ++tasks;
  }
  return tasks ? sum / tasks : 0.0;
}

ChoiceResults answer_choices(Scorer& scorer, const Tokenizer& tokenizer, std::span<const ChoiceItem> items,
                             const std::function<void(double, double)>& progress) {
  if (tokenizer.bos() < 0) throw Error(ErrorCode::kData, "the tokenizer has no start token (bos), which choices need");
  struct Text {
    size_t item = 0, choice = 0, answer_tokens = 0;
    bool has_context = true;
    std::vector<int32_t> tokens;
  };
  std::vector<Text> texts;
  const size_t most = static_cast<size_t>(scorer.context_length());
  for (size_t i = 0; i < items.size(); ++i) {
    const std::vector<int32_t> context = tokenizer.encode(items[i].context);
    for (size_t c = 0; c < kNumChoices; ++c) {
      std::vector<int32_t> answer = tokenizer.encode(items[i].answers[c]);
      answer.resize(std::min(answer.size(), most / 2));
      for (const bool has_context : {true, false}) {
        Text text{i, c, answer.size(), has_context, {tokenizer.bos()}};
        const size_t kept = has_context ? std::min(context.size(), most - 1 - answer.size()) : 0;
        text.tokens.insert(text.tokens.end(), context.end() - static_cast<int64_t>(kept), context.end());
        text.tokens.insert(text.tokens.end(), answer.begin(), answer.end());
        texts.push_back(std::move(text));
      }
    }
  }
  std::stable_sort(texts.begin(), texts.end(),
                   [](const Text& a, const Text& b) { return a.tokens.size() > b.tokens.size(); });
  constexpr size_t kTextsACall = 32;
  std::vector<std::array<double, kNumChoices>> scores(items.size()), gains(items.size());
  for (size_t first = 0; first < texts.size(); first += kTextsACall) {
    const size_t count = std::min(kTextsACall, texts.size() - first);
    std::vector<std::vector<int32_t>> tokens;
    for (size_t n = 0; n < count; ++n) tokens.push_back(texts[first + n].tokens);
    const std::vector<ScoredText> scored = scorer.score(tokens);
    for (size_t n = 0; n < count; ++n) {
      const Text& text = texts[first + n];
      const std::vector<float>& log_probs = scored[n].log_probs;
      double sum = 0;
      for (size_t t = log_probs.size() - text.answer_tokens; t < log_probs.size(); ++t)
        sum += static_cast<double>(log_probs[t]);
      gains[text.item][text.choice] += text.has_context ? sum : -sum;
      if (text.has_context)
        scores[text.item][text.choice] = sum / static_cast<double>(items[text.item].answers[text.choice].size());
    }
    if (progress) progress(static_cast<double>(first + count), static_cast<double>(texts.size()));
  }
  ChoiceResults results;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto is_right = [&](const std::array<double, kNumChoices>& by) {
      return std::max_element(by.begin(), by.end()) - by.begin() == items[i].right;
    };
    results.correct.push_back(is_right(scores[i]));
    results.correct_by_gain.push_back(is_right(gains[i]));
  }
  return results;
}

}  // namespace tessera
