#include "train/routing_suite.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "core/cost_model.h"
#include "data/domain_sampler.h"
#include "data/evaluate.h"
#include "data/linear_baseline.h"
#include "data/sample.h"
#include "data/splice.h"
#include "train/losses.h"
#include "train/scorer.h"
#include "train/teacher.h"

namespace tessera {
namespace {

constexpr int kDocumentTokens = 512;  // what a document's choice is made from
constexpr int kBatch = 8;
constexpr size_t kTeacherBytes = 640;  // of each of the texts that make up the teacher's choice

double share(int64_t part, int64_t whole) { return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0; }

class Suite {
 public:
  Suite(const Model& model, const Tokenizer& tokenizer, const RoutingSuiteOptions& options)
      : model_(model),
        tokenizer_(tokenizer),
        options_(options),
        hierarchy_(model.architecture().hierarchy),
        names_(routed_names(hierarchy_)) {
    for (size_t i = 0; i < options.documents.size(); ++i) {
      const int32_t label = routed_index(hierarchy_, options.documents[i].domain);
      if (label < 0) continue;
      std::vector<int32_t> tokens = tokenizer.encode(cut_text(options.documents[i].text, 16 * kDocumentTokens));
      if (tokens.empty()) continue;
      tokens.insert(tokens.begin(), tokenizer.bos());
      tokens.resize(std::min<size_t>(tokens.size(), text_tokens()));
      texts_.push_back({tokens, std::vector<int32_t>(tokens.size(), label)});
      labels_.push_back(label);
      documents_.push_back(i);
    }
    if (texts_.empty()) {
      throw Error(ErrorCode::kData, "no document has a domain that the model routes to",
                  fmt::format("its domains are {}; a line looks like {{\"text\": \"...\", \"domain\": \"{}\"}}",
                              fmt::join(names_, ", "), names_[0]));
    }
  }

  Json run(std::vector<DocumentDecision>* decisions) {
    classify();
    Json report = accuracies();
    report["linear_baseline_accuracy"] = linear_baseline();
    report.update(teacher());
    regrets(report);
    if (decisions) {
      for (size_t i = 0; i < texts_.size(); ++i) decisions->push_back({labels_[i], choices_[i], documents_[i]});
    }
    return report;
  }

 private:
  size_t text_tokens() const {
    return static_cast<size_t>(std::min(kDocumentTokens, model_.architecture().trunk.context_length)) + 1;
  }
  void step(const char* what, size_t done, size_t total) const {
    if (options_.progress) options_.progress(what, static_cast<double>(done), static_cast<double>(total));
  }

  // Level 1 alone on the first 512 tokens of each document.
  void classify() {
    const Architecture& a = model_.architecture();
    const size_t m = names_.size();
    const double begin_s = now_s();
    choices_.assign(texts_.size(), -1);
    for (size_t first = 0; first < texts_.size(); first += kBatch) {
      const size_t end = std::min(texts_.size(), first + kBatch);
      std::vector<LabelledText> batch(texts_.begin() + static_cast<int64_t>(first),
                                      texts_.begin() + static_cast<int64_t>(end));
      for (LabelledText& text : batch) {
        text.tokens.resize(std::min<size_t>(text.tokens.size(), kDocumentTokens));
        text.labels.resize(text.tokens.size());
      }
      const PackedRows rows = pack_texts(batch, model_.chunk_tokens());
      const at::Tensor embedded = at::embedding(model_.parameters()["embedding"], rows.tokens_RT);
      const DomainPlan plan = plan_domains(a, model_.parameters(), rows, embedded, {});
      if (plan.logits_CM.defined()) {
        append_decisions(plan, rows, static_cast<int>(m), decisions_);
      }
      std::vector<double> log_pi(batch.size() * m, 0.0);
      std::vector<bool> decided(batch.size(), false);
      for (size_t c = 0; c < rows.chunks.size(); ++c) {
        const PackedRows::Chunk& chunk = rows.chunks[c];
        const float* pi = &plan.pi_CM[c * m];
        if (chunk.piece_start != 0 || is_undecided({pi, m})) continue;  // padding; nothing decided yet
        const size_t row = static_cast<size_t>(chunk.row);
        decided[row] = true;
        for (size_t d = 0; d < m; ++d)
          log_pi[row * m + d] +=
              static_cast<double>(chunk.end - chunk.begin) * std::log(std::max(1e-12, static_cast<double>(pi[d])));
      }
      for (size_t i = 0; i < batch.size(); ++i) {
        const auto begin = log_pi.begin() + static_cast<int64_t>(i * m);
        if (decided[i])
          choices_[first + i] = static_cast<int>(std::max_element(begin, begin + static_cast<int64_t>(m)) - begin);
      }
      step("level 1", end, texts_.size());
    }
    classify_ms_ = 1e3 * (now_s() - begin_s) / static_cast<double>(texts_.size());
  }

  Json accuracies() const {
    const size_t m = names_.size();
    std::vector<std::vector<int64_t>> confusion(m, std::vector<int64_t>(m, 0));
    struct Source {
      int64_t right = 0, all = 0;
    };
    std::map<std::string, Source> sources;
    int64_t right = 0, judged = 0;
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (choices_[i] < 0) continue;  // too short for a decision
      ++confusion[static_cast<size_t>(labels_[i])][static_cast<size_t>(choices_[i])];
      Source& source = sources[options_.documents[documents_[i]].source];
      const bool is_right = choices_[i] == labels_[i];
      right += is_right, source.right += is_right;
      ++judged, ++source.all;
    }
    Json report = {{"domains", names_}, {"documents", judged}, {"confusion", confusion}};
    report["accuracy_documents"] = judged ? Json(share(right, judged)) : Json();
    double f1_sum = 0;
    int classes = 0;
    for (size_t d = 0; d < m; ++d) {
      int64_t chosen = 0, labelled = 0;
      for (size_t e = 0; e < m; ++e) chosen += confusion[e][d], labelled += confusion[d][e];
      if (labelled == 0) continue;
      ++classes;
      f1_sum += 2 * static_cast<double>(confusion[d][d]) / static_cast<double>(chosen + labelled);
    }
    report["macro_f1"] = classes ? Json(f1_sum / classes) : Json();
    int64_t right_chunks = 0, chunks = 0;
    for (const TextDecisions& text : decisions_) {
      for (size_t c = 0; c < text.tokens_C.size(); ++c) {
        const auto best = [&](const std::vector<float>& values) {
          const auto begin = values.begin() + static_cast<int64_t>(c * m);
          return std::max_element(begin, begin + static_cast<int64_t>(m)) - begin;
        };
        right_chunks += best(text.logits_CM) == best(text.targets_CM);
        ++chunks;
      }
    }
    report["accuracy_chunks"] = chunks ? Json(share(right_chunks, chunks)) : Json();
    report["ece"] =
        chunks ? Json(calibration_error(decisions_, static_cast<int>(m), model_.architecture().domain_router)) : Json();
    Json by_source = Json::object(), worst;
    for (const auto& [name, source] : sources) {
      by_source[name] = {{"documents", source.all}, {"accuracy", share(source.right, source.all)}};
      if (worst.is_null() || share(source.right, source.all) < worst["accuracy"].get<double>())
        worst = {{"source", name}, {"accuracy", share(source.right, source.all)}, {"documents", source.all}};
    }
    report["by_source"] = by_source;
    report["worst_source"] = worst;
    return report;
  }

  // A classifier that has learnt from the data folder's training documents; null without one.
  Json linear_baseline() const {
    if (!options_.train_data) return {};
    const ShardSet shards(*options_.train_data, false);
    if (shards.vocab_size() != model_.architecture().trunk.vocab_size) {
      warn_once("the linear baseline is left out: the data at " + *options_.train_data +
                " has another vocabulary than the model");
      return {};
    }
    std::vector<int> labels;
    for (const std::string& domain : shards.domains()) labels.push_back(routed_index(hierarchy_, domain));
    const LinearBaseline baseline(DomainSampler(shards, labels, false), shards.vocab_size(), options_.seed);
    int64_t right = 0;
    for (size_t i = 0; i < texts_.size(); ++i) {
      const size_t count = std::min<size_t>(texts_[i].tokens.size(), kDocumentTokens) - 1;
      right += baseline.classify(std::span(texts_[i].tokens).subspan(1, count)) == labels_[i];
    }
    return share(right, static_cast<int64_t>(texts_.size()));
  }

  // The teacher on the same 512 tokens, read as texts of kTeacherBytes whose log-probabilities are averaged.
  Json teacher() const {
    Json report = {{"teacher_accuracy", nullptr}, {"agreement", nullptr}};
    if (!options_.teacher) return report;
    const Teacher teacher(*options_.teacher);
    if (teacher.domains() != names_) {
      throw Error(ErrorCode::kConfig,
                  fmt::format("the teacher at {} was tuned on the domains {}, the model has {}", *options_.teacher,
                              fmt::join(teacher.domains(), ", "), fmt::join(names_, ", ")));
    }
    const at::NoGradGuard no_grad;
    int64_t right = 0, agree = 0;
    const double begin = now_s();
    for (size_t i = 0; i < texts_.size(); ++i) {
      const size_t count = std::min<size_t>(texts_[i].tokens.size(), kDocumentTokens) - 1;
      const std::string text = tokenizer_.decode(std::span(texts_[i].tokens).subspan(1, count));
      std::vector<std::string> parts;
      for (size_t at = 0; at < text.size(); at += kTeacherBytes) parts.push_back(text.substr(at, kTeacherBytes));
      const int64_t choice = at::log_softmax(teacher.logits(parts), 1).mean(0).argmax().item<int64_t>();
      right += choice == labels_[i];
      agree += choice == choices_[i];
      step("teacher", i + 1, texts_.size());
    }
    report["teacher_accuracy"] = share(right, static_cast<int64_t>(texts_.size()));
    report["agreement"] = share(agree, static_cast<int64_t>(texts_.size()));
    report["teacher_ms_a_document"] = 1e3 * (now_s() - begin) / static_cast<double>(texts_.size());
    report["teacher_parameters"] = teacher.num_parameters();
    report["student_ms_a_document"] = classify_ms_;
    report["student_parameters"] = count_parameters(model_.architecture()).of(Part::kDomainRouter).total;
    return report;
  }

  // Nats of each text with level 1 as it is, or of another kind, or confined to one domain.
  std::vector<double> nats(const std::vector<LabelledText>& texts, const std::string& kind, int only_domain,
                           RouteStatistics* use) const {
    Architecture a = model_.architecture();
    if (!kind.empty()) a.domain_router.kind = kind;
    RoutingOptions routing;
    routing.dropout_seed = options_.seed;
    if (only_domain >= 0) {
      routing.allowed_domains.assign(names_.size(), 0);
      routing.allowed_domains[static_cast<size_t>(only_domain)] = 1;
    }
    const Model model(a, model_.parameters(), at::kFloat);
    std::vector<double> nats;
    for (size_t first = 0; first < texts.size(); first += kBatch) {
      const size_t end = std::min(texts.size(), first + kBatch);
      const PackedRows rows =
          pack_texts({texts.begin() + static_cast<int64_t>(first), texts.begin() + static_cast<int64_t>(end)},
                     model.chunk_tokens());
      const Forward forward = model.forward(rows, routing);
      const at::Tensor hidden = forward.hidden_RTD.reshape({-1, forward.hidden_RTD.size(-1)});
      const at::Tensor log_probs =
          target_log_probs(hidden, model.head(), rows.targets_RT.reshape({-1})).view({rows.num_rows, -1}).sum(1);
      for (size_t i = first; i < end; ++i) {
        nats.push_back(-log_probs[static_cast<int64_t>(i - first)].item<double>());
        if (use) {
          use->add(route_of_row(a, rows, forward, static_cast<int64_t>(i - first),
                                static_cast<int64_t>(texts[i].tokens.size())),
                   std::max(0, texts[i].labels[0]), static_cast<int64_t>(i), 0);
        }
      }
    }
    return nats;
  }

  Json regret(const std::vector<LabelledText>& texts, bool has_labels, RouteStatistics* use) const {
    double tokens = 0;
    for (const LabelledText& text : texts) tokens += static_cast<double>(text.tokens.size()) - 1;
    const auto mean = [&](const std::vector<double>& values) {
      double sum = 0;
      for (double v : values) sum += v;
      return sum / tokens;
    };
    const double own = mean(nats(texts, "", -1, use));
    std::vector<double> best(texts.size(), INFINITY);
    for (size_t d = 0; d < names_.size(); ++d) {
      const std::vector<double> alone = nats(texts, "", static_cast<int>(d), nullptr);
      for (size_t i = 0; i < best.size(); ++i) best[i] = std::min(best[i], alone[i]);
    }
    Json json = {{"loss", own},
                 {"best_single", own - mean(best)},
                 {"uniform", own - mean(nats(texts, "uniform", -1, nullptr))},
                 {"random", own - mean(nats(texts, "random", -1, nullptr))},
                 {"texts", texts.size()}};
    json["oracle"] = has_labels ? Json(own - mean(nats(texts, "oracle", -1, nullptr))) : Json();
    return json;
  }

  // At most `regret_texts`, spread evenly over what there is.
  std::vector<LabelledText> sample(const std::vector<LabelledText>& all) const {
    const size_t count =
        options_.regret_texts > 0 ? std::min(all.size(), static_cast<size_t>(options_.regret_texts)) : all.size();
    std::vector<LabelledText> some;
    for (size_t i = 0; i < count; ++i) some.push_back(all[i * all.size() / count]);
    return some;
  }

  // 2-4 pieces of 32-400 tokens of different documents, cut off the chunk grid.
  std::vector<LabelledText> splices(size_t count) const {
    Rng rng(options_.seed, 0x5b1);
    std::vector<LabelledText> spliced;
    while (spliced.size() < count) {
      LabelledText text{{tokenizer_.bos()}, {-1}};
      for (int64_t pieces = splice_pieces(rng); pieces > 0; --pieces) {
        const int32_t domain = static_cast<int32_t>(rng.below(names_.size()));
        size_t i = rng.below(texts_.size());
        for (int attempt = 0; attempt < 200 && labels_[i] != domain; ++attempt) i = rng.below(texts_.size());
        const size_t all = texts_[i].tokens.size() - 1,
                     length = std::min(all, static_cast<size_t>(splice_piece_tokens(rng)));
        const size_t begin = 1 + rng.below(all - length + 1);
        text.tokens.insert(text.tokens.end(), texts_[i].tokens.begin() + static_cast<int64_t>(begin),
                           texts_[i].tokens.begin() + static_cast<int64_t>(begin + length));
        text.labels.resize(text.tokens.size(), labels_[i]);
      }
      text.tokens.resize(std::min(text.tokens.size(), text_tokens()));
      text.labels.resize(text.tokens.size());
      text.labels[0] = text.labels[1];
      spliced.push_back(std::move(text));
    }
    return spliced;
  }

  void regrets(Json& report) {
    const Architecture& a = model_.architecture();
    RouteStatistics use(a.hierarchy, names_, static_cast<int64_t>(texts_.size()));
    const std::vector<LabelledText> plain = sample(texts_);
    Json all = {{"plain", nullptr}, {"spliced", nullptr}, {"mixed", nullptr}};
    all["plain"] = regret(plain, true, &use);
    step("regret", 1, 3);
    all["spliced"] = regret(splices(plain.size()), true, nullptr);
    step("regret", 2, 3);
    std::vector<LabelledText> mixed;
    for (const Document& document : options_.mixed) {
      std::vector<int32_t> tokens = tokenizer_.encode(document.text);
      if (tokens.empty()) continue;
      tokens.insert(tokens.begin(), tokenizer_.bos());
      tokens.resize(std::min<size_t>(tokens.size(), text_tokens()));
      mixed.push_back({tokens, std::vector<int32_t>(tokens.size(), -1)});
    }
    if (!mixed.empty()) all["mixed"] = regret(sample(mixed), false, nullptr);
    step("regret", 3, 3);
    report["regret"] = all;
    report["regret_nats"] = Json::object();
    for (const auto& [kind, values] : all.items())
      report["regret_nats"][kind] = values.is_null() ? Json() : values["best_single"];
    report["dead_components"] = use.num_dead();
    report["load"] = use.to_json();
  }

  const Model& model_;
  const Tokenizer& tokenizer_;
  const RoutingSuiteOptions& options_;
  const Hierarchy& hierarchy_;
  const std::vector<std::string> names_;
  std::vector<LabelledText> texts_;  // the first 512 tokens of each judged document and one more
  std::vector<int32_t> labels_;
  std::vector<size_t> documents_;
  std::vector<int> choices_;
  std::vector<TextDecisions> decisions_;
  double classify_ms_ = 0;  // a document
};

}  // namespace

Json routing_suite(const Model& model, const Tokenizer& tokenizer, const RoutingSuiteOptions& options,
                   std::vector<DocumentDecision>* decisions) {
  const at::NoGradGuard no_grad;
  if (num_component_layers(model.architecture()) == 0 || routed_domains(model.architecture().hierarchy).size() < 2) {
    throw Error(ErrorCode::kUsage, "the model has fewer than two domains: there is no routing to judge");
  }
  if (tokenizer.bos() < 0) throw Error(ErrorCode::kData, "the tokenizer has no start token (bos)");
  return Suite(model, tokenizer, options).run(decisions);
}

}  // namespace tessera
