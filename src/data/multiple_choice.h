// Cross-domain four-way multiple choice, made from held-out documents that mix domains. DESIGN section 4.
//
//   docstring  a documented function or a commented piece of code: the comment -> the code below it
//   code       a paragraph of prose in a vignette or notebook -> the code below it
//   formula    text -> the formula that it leads to (LaTeX, inline or displayed)
//
// The wrong answers are right answers of other items of the same source and form, within 20 % of the right one's bytes.
// A scorer answers with the choice that has the highest log-probability a byte behind the context; and, beside it, with
// the one that gains most from the context: log p(answer | context) - log p(answer), pointwise mutual information
// (Holtzman et al. 2021). A small model's log-probability says more about how usual an answer is than about the match.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/scorer.h"
#include "core/tokenizer.h"
#include "data/document.h"

namespace tessera {

inline constexpr int kNumChoices = 4;
inline constexpr std::array<const char*, 3> kChoiceTasks = {"docstring", "code", "formula"};

struct ChoiceItem {
  int task = 0;  // index into kChoiceTasks
  std::string source, context;
  std::array<std::string, kNumChoices> answers;
  int right = 0;  // index into answers
};

// What could become an item, by task: in the order of the documents.
struct ChoiceCandidate {
  int task = 0;
  std::string form;  // answers are exchanged only within (source, form): "python", "comment", "inline", ...
  std::string source, context, answer;
};
std::vector<ChoiceCandidate> find_choice_candidates(const Document& document);

// At most `items_a_task` of each task, drawn by a hash of context and answer; the same for the same documents and seed.
// A candidate for which the source has no three other answers of that length is left out.
std::vector<ChoiceItem> make_choice_items(std::span<const Document> documents, int items_a_task, uint64_t seed = 1);

struct ChoiceResults {
  std::vector<uint8_t> correct, correct_by_gain;  // by item
};
// Share of items of the task that were answered right; the mean over the tasks that have items. Chance: 0.25.
double accuracy(std::span<const ChoiceItem> items, std::span<const uint8_t> correct, int task);
double mean_accuracy(std::span<const ChoiceItem> items, std::span<const uint8_t> correct);
// Throws Error{kData} when the tokenizer has no bos. The context is cut from the left to fit the scorer's length.
ChoiceResults answer_choices(Scorer& scorer, const Tokenizer& tokenizer, std::span<const ChoiceItem> items,
                             const std::function<void(double done, double total)>& progress = {});

}  // namespace tessera
