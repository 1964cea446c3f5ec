#include "data/evaluate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tessera {
namespace {

constexpr double kLn2 = 0.69314718055994530942;

struct Window {  // text tokens [begin, begin + count) of a document, scored behind a bos
  size_t document = 0;
  int64_t begin = 0, count = 0;
};

const std::string& domain_of(const Document& document) {
  static const std::string kUnlabelled = "unlabelled";
  return document.domain.empty() ? kUnlabelled : document.domain;
}

// The domains that occur, the model's first and in its order.
std::vector<std::string> domain_names(std::span<const Document> documents, const Hierarchy& hierarchy) {
  std::vector<std::string> met;
  for (const Document& d : documents) {
    if (!d.text.empty() && std::find(met.begin(), met.end(), domain_of(d)) == met.end()) met.push_back(domain_of(d));
  }
  std::stable_sort(met.begin(), met.end(), [&](const std::string& a, const std::string& b) {
    return static_cast<unsigned>(routed_index(hierarchy, a)) < static_cast<unsigned>(routed_index(hierarchy, b));
  });  // -1 as unsigned comes last
  return met;
}

// Tokenises the text and fills `result` but for its losses. Gives the tokens by document.
std::vector<std::vector<int32_t>> take_documents(const Tokenizer& tokenizer, std::span<const Document> documents,
                                                 const EvaluateOptions& options, Evaluation& result) {
  std::vector<std::vector<int32_t>> tokens;
  for (const std::string& name : domain_names(documents, options.hierarchy)) result.domains.push_back({.name = name});
  for (const Document& document : documents) {
    if (document.text.empty()) continue;
    const auto sum = std::find_if(result.domains.begin(), result.domains.end(),
                                  [&](const DomainSum& d) { return d.name == domain_of(document); });
    const int domain = static_cast<int>(sum - result.domains.begin());
    tokens.push_back(tokenizer.encode(document.text));
    result.documents.push_back({.domain = domain,
                                .bytes = static_cast<int64_t>(document.text.size()),
                                .tokens = static_cast<int64_t>(tokens.back().size())});
    ++sum->documents;
    sum->bytes += result.documents.back().bytes;
    sum->tokens += result.documents.back().tokens;
  }
  if (tokens.empty()) {
    throw Error(ErrorCode::kData, "there is no text to evaluate",
                "a line looks like {\"text\": \"...\", \"domain\": \"code\"}");
  }
  return tokens;
}

double bits_per_byte(double nats, int64_t bytes) { return bytes ? nats / (kLn2 * static_cast<double>(bytes)) : 0.0; }

}  // namespace

double Evaluation::bpb(int domain) const {
  const DomainSum& d = domains.at(static_cast<size_t>(domain));
  return bits_per_byte(d.nats, d.bytes);
}

double Evaluation::bpb_all() const {
  double nats = 0;
  for (const DomainSum& d : domains) nats += d.nats;
  return bits_per_byte(nats, bytes());
}

double Evaluation::bpb_mean() const {
  double sum = 0;
  for (const DomainSum& d : domains) sum += bits_per_byte(d.nats, d.bytes);
  return domains.empty() ? 0.0 : sum / static_cast<double>(domains.size());
}

int64_t Evaluation::bytes() const {
  int64_t sum = 0;
  for (const DomainSum& d : domains) sum += d.bytes;
  return sum;
}

int64_t Evaluation::tokens() const {
  int64_t sum = 0;
  for (const DomainSum& d : domains) sum += d.tokens;
  return sum;
}

Evaluation evaluate(Scorer& scorer, const Tokenizer& tokenizer, std::span<const Document> documents,
                    const EvaluateOptions& options) {
  const int32_t bos = tokenizer.bos();
  if (bos < 0) throw Error(ErrorCode::kData, "the tokenizer has no start token (bos), which evaluation needs");
  if (tokenizer.vocab_size() > scorer.vocab_size()) {
    throw Error(ErrorCode::kData,
                "the tokenizer has " + std::to_string(tokenizer.vocab_size()) + " tokens, the model only " +
                    std::to_string(scorer.vocab_size()),
                "use the tokenizer.json that lies beside the model");
  }
  TESSERA_CHECK(scorer.context_length() >= 2 && options.windows_a_call >= 1, "no room for a window");

  Evaluation result;
  const std::vector<std::vector<int32_t>> tokens = take_documents(tokenizer, documents, options, result);
  std::vector<std::string> names;
  std::vector<int> label_of_domain;
  for (const DomainSum& d : result.domains) {
    names.push_back(d.name);
    label_of_domain.push_back(routed_index(options.hierarchy, d.name));
  }
  result.route = RouteStatistics(options.hierarchy, names, static_cast<int64_t>(tokens.size()), options.judges_level1);

  std::vector<Window> windows;
  const int64_t text_tokens = scorer.context_length() - 1;
  for (size_t d = 0; d < tokens.size(); ++d) {
    const int64_t count = static_cast<int64_t>(tokens[d].size());
    for (int64_t begin = 0; begin < count; begin += text_tokens) {
      windows.push_back({d, begin, std::min(text_tokens, count - begin)});
    }
  }
  // Longest first, so that little of a call is padding, and a call that needs too much memory fails at once.
  std::stable_sort(windows.begin(), windows.end(), [](const Window& a, const Window& b) { return a.count > b.count; });

  double done = 0;
  const double total = static_cast<double>(result.tokens());
  const size_t step = static_cast<size_t>(options.windows_a_call);
  for (size_t first = 0; first < windows.size(); first += step) {
    const std::span<const Window> group(windows.data() + first, std::min(step, windows.size() - first));
    std::vector<std::vector<int32_t>> texts;
    std::vector<int> labels;
    for (const Window& w : group) {
      const auto from = tokens[w.document].begin() + w.begin;
      std::vector<int32_t>& text = texts.emplace_back(1, bos);
      text.insert(text.end(), from, from + w.count);
      labels.push_back(label_of_domain[static_cast<size_t>(result.documents[w.document].domain)]);
    }
    const std::vector<ScoredText> scored = scorer.score(texts, labels);
    TESSERA_CHECK(scored.size() == group.size(), "the scorer gave another number of texts");
    for (size_t i = 0; i < group.size(); ++i) {
      const Window& w = group[i];
      DocumentSum& document = result.documents[w.document];
      TESSERA_CHECK(static_cast<int64_t>(scored[i].log_probs.size()) == w.count, "the scorer left tokens out");
      for (float log_prob : scored[i].log_probs) document.nats -= static_cast<double>(log_prob);
      if (!std::isfinite(document.nats)) {
        throw Error(ErrorCode::kDiverged, "the model gives log-probabilities that are no numbers",
                    "its weights are probably not finite: go back to an earlier checkpoint");
      }
      result.route.add(scored[i].route, document.domain, static_cast<int64_t>(w.document), w.begin);
      done += static_cast<double>(w.count);
    }
    if (options.progress) options.progress(done, total);
  }
  for (const DocumentSum& d : result.documents) result.domains[static_cast<size_t>(d.domain)].nats += d.nats;
  return result;
}

Json to_json(const Evaluation& e) {
  Json bpb = Json::object(), by_domain = Json::object();
  for (size_t d = 0; d < e.domains.size(); ++d) {
    const DomainSum& sum = e.domains[d];
    bpb[sum.name] = e.bpb(static_cast<int>(d));
    by_domain[sum.name] = {{"documents", sum.documents}, {"bytes", sum.bytes}, {"tokens", sum.tokens}};
  }
  Json json = {
      {"bpb", bpb},         {"bpb_all", e.bpb_all()}, {"bpb_mean", e.bpb_mean()}, {"documents", e.documents.size()},
      {"bytes", e.bytes()}, {"tokens", e.tokens()},   {"by_domain", by_domain}};
  if (!e.route.empty()) json["route_statistics"] = e.route.to_json();
  return json;
}

}  // namespace tessera
