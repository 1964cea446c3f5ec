#include "data/suite.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "base/error.h"
#include "base/files.h"
#include "base/rng.h"
#include "core/unicode.h"
#include "data/sample.h"
#include "data/splice.h"

namespace tessera {
namespace {

constexpr int64_t kBytesASource = 80'000, kBytesADocument = 5'000;
constexpr int kItemsATask = 1000;
constexpr int kSpliced = 200;

Json details_of(const Evaluation& evaluation, const std::vector<Document>& documents) {
  TESSERA_CHECK(evaluation.documents.size() == documents.size(), "a document was left out");
  Json json;
  for (const char* key : {"domains", "sources", "domain", "source", "bytes", "bits"}) json[key] = Json::array();
  for (const DomainSum& d : evaluation.domains) json["domains"].push_back(d.name);
  for (size_t i = 0; i < documents.size(); ++i) {
    const DocumentSum& sum = evaluation.documents[i];
    json["domain"].push_back(sum.domain);
    if (json["sources"].empty() || json["sources"].back() != documents[i].source)  // the sample is sorted by source
      json["sources"].push_back(documents[i].source);
    json["source"].push_back(json["sources"].size() - 1);
    json["bytes"].push_back(sum.bytes);
    json["bits"].push_back(std::round(100 * sum.nats / std::numbers::ln2) / 100);
  }
  return json;
}

// The text without the parts of characters at its ends.
std::string_view whole_characters(std::string_view text) {
  while (!text.empty() && (text.front() & 0xC0) == 0x80) text.remove_prefix(1);
  return text.substr(0, valid_utf8_prefix(text));
}

std::vector<Document> splice_documents(const std::vector<Document>& documents) {
  std::map<std::string, std::vector<const Document*>> by_domain;
  for (const Document& d : documents) by_domain[d.domain].push_back(&d);
  Rng rng(1, 0x5b11ce);
  std::vector<Document> spliced;
  while (spliced.size() < kSpliced) {
    std::string text;
    for (int64_t pieces = splice_pieces(rng); pieces > 0; --pieces) {
      const auto& [name, own] = *std::next(by_domain.begin(), static_cast<int64_t>(rng.below(by_domain.size())));
      const std::string_view from = own[rng.below(own.size())]->text;
      const size_t length = std::min(from.size(), static_cast<size_t>(3 * splice_piece_tokens(rng)));
      text += whole_characters(from.substr(rng.below(from.size() - length + 1), length));
    }
    spliced.push_back({text, "spliced", "spliced"});
  }
  return spliced;
}

}  // namespace

Suite load_suite(const std::filesystem::path& folder) {
  std::vector<Document> heldout, cross, all;
  read_documents(folder / "heldout.jsonl.zst", [&](Document&& d) { heldout.push_back(std::move(d)); });
  read_documents(folder / "cross.jsonl.zst", [&](Document&& d) { cross.push_back(std::move(d)); });
  if (heldout.empty() || cross.empty()) {
    throw Error(ErrorCode::kData, folder.string() + " has no held-out or no cross-domain documents",
                "./tessera data fetch full && ./tessera data build full");
  }
  Suite suite;
  suite.heldout = sample_by_source(heldout, kBytesASource, kBytesADocument);
  suite.cross = sample_by_source(cross, kBytesASource, kBytesADocument);
  suite.spliced = splice_documents(heldout);
  all = std::move(heldout);
  std::move(cross.begin(), cross.end(), std::back_inserter(all));
  suite.items = make_choice_items(all, kItemsATask);
  std::string text;
  for (const Document& d : suite.heldout) text += d.text + '\0';
  for (const Document& d : suite.cross) text += d.text + '\0';
  for (const ChoiceItem& item : suite.items) {
    text += item.context + '\0' + std::to_string(item.right);
    for (const std::string& answer : item.answers) text += answer + '\0';
  }
  suite.hash = hash_hex(text);
  text.clear();
  for (const Document& d : suite.spliced) text += d.text + '\0';
  suite.spliced_hash = hash_hex(text);
  return suite;
}

SuiteResults run_suite(Scorer& scorer, const Tokenizer& tokenizer, const Suite& suite, const Hierarchy& hierarchy,
                       const std::function<void(double, double)>& progress) {
  // The parts take about 3, 2, 1 and 4 tenths of the time; choices may be none.
  const double whole = suite.items.empty() ? 0.6 : 1;
  const auto within = [&](double begin, double share) {
    return [=, &progress](double done, double total) {
      if (progress) progress(begin + share * done / total, whole);
    };
  };
  EvaluateOptions options;
  options.hierarchy = hierarchy;
  options.progress = within(0, 0.3);
  SuiteResults results;
  results.heldout = evaluate(scorer, tokenizer, suite.heldout, options);
  options.progress = within(0.3, 0.2);
  results.cross = evaluate(scorer, tokenizer, suite.cross, options);
  options.progress = within(0.5, 0.1);
  results.spliced = evaluate(scorer, tokenizer, suite.spliced, options);
  results.choices = answer_choices(scorer, tokenizer, suite.items, within(0.6, 0.4));
  return results;
}

std::pair<Json, Json> spliced_json(const Evaluation& spliced, const Suite& suite) {
  return {{{"spliced_bpb", spliced.bpb_all()}, {"spliced_hash", suite.spliced_hash}},
          details_of(spliced, suite.spliced)};
}

Json to_json(const SuiteResults& results, const Suite& suite) {
  Json bpb = Json::object(), counts = Json::object();
  for (size_t d = 0; d < results.heldout.domains.size(); ++d)
    bpb[results.heldout.domains[d].name] = results.heldout.bpb(static_cast<int>(d));
  const auto accuracies = [&](const std::vector<uint8_t>& correct) {
    Json json = Json::object();
    for (size_t task = 0; task < kChoiceTasks.size(); ++task)
      json[kChoiceTasks[task]] = accuracy(suite.items, correct, static_cast<int>(task));
    json["mean"] = mean_accuracy(suite.items, correct);
    return json;
  };
  for (size_t task = 0; task < kChoiceTasks.size(); ++task) {
    counts[kChoiceTasks[task]] = std::count_if(suite.items.begin(), suite.items.end(),
                                               [&](const ChoiceItem& i) { return i.task == static_cast<int>(task); });
  }
  Json json = {{"bpb", bpb},
               {"cross_bpb", results.cross.bpb_all()},
               {"chance", 1.0 / kNumChoices},
               {"items", counts},
               {"suite_hash", suite.hash}};
  json.update(spliced_json(results.spliced, suite).first);
  if (!suite.items.empty()) {
    json["cross_accuracy"] = accuracies(results.choices.correct);
    json["cross_accuracy_by_gain"] = accuracies(results.choices.correct_by_gain);
  }
  if (!results.heldout.route.empty()) json["route_statistics"] = results.heldout.route.to_json();
  return json;
}

Json details_json(const SuiteResults& results, const Suite& suite) {
  const auto digits = [&](const std::vector<uint8_t>& correct) {
    Json json = Json::object();
    for (const char* task : kChoiceTasks) json[task] = "";
    for (size_t i = 0; i < suite.items.size(); ++i)
      json[kChoiceTasks[static_cast<size_t>(suite.items[i].task)]].get_ref<std::string&>() += correct[i] ? '1' : '0';
    return json;
  };
  return {{"heldout", details_of(results.heldout, suite.heldout)},
          {"cross", details_of(results.cross, suite.cross)},
          {"spliced", details_of(results.spliced, suite.spliced)},
          {"choices", digits(results.choices.correct)},
          {"choices_by_gain", digits(results.choices.correct_by_gain)}};
}

}  // namespace tessera
