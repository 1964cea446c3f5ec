#include "apps/evaluate_file.h"

#include <iostream>

#include "base/log.h"
#include "base/peak_memory.h"
#include "data/evaluate.h"
#include "data/sample.h"

namespace tessera {

void evaluate_file(Scorer& scorer, const Tokenizer& tokenizer, const Hierarchy& hierarchy, const std::string& data,
                   int64_t max_bytes, bool all_domains, bool json) {
  std::vector<Document> documents;
  read_documents(data, [&](Document&& d) { documents.push_back(std::move(d)); });
  documents = even_sample(std::move(documents), max_bytes);
  EvaluateOptions options;
  options.hierarchy = hierarchy;
  options.judges_level1 = all_domains;
  Progress progress("evaluate");
  options.progress = [&](double done, double total) { progress.update(done, total); };
  const Evaluation evaluation = evaluate(scorer, tokenizer, documents, options);
  progress.finish();
  const auto row = [](const std::string& name, int64_t count, int64_t bytes, int64_t tokens, double bpb) {
    std::cout << fmt::format("{:<14}{:>10}{:>12}{:>12}{:>14.4f}\n", name, count,
                             human_bytes(static_cast<double>(bytes)), human_count(static_cast<double>(tokens)), bpb);
  };
  std::cout << fmt::format("{:<14}{:>10}{:>12}{:>12}{:>14}\n", "domain", "documents", "bytes", "tokens", "bits/byte");
  for (size_t d = 0; d < evaluation.domains.size(); ++d) {
    const DomainSum& sum = evaluation.domains[d];
    row(sum.name, sum.documents, sum.bytes, sum.tokens, evaluation.bpb(static_cast<int>(d)));
  }
  row("all", static_cast<int64_t>(evaluation.documents.size()), evaluation.bytes(), evaluation.tokens(),
      evaluation.bpb_all());
  const RouteStatistics& route = evaluation.route;
  if (route.num_judged_documents() > 0) {  // the documents have labels that the model knows
    std::cout << fmt::format("level 1 right: {:.1f} % of {} chunks, {:.1f} % of {} documents\n",
                             100 * route.chunk_accuracy(), route.num_judged_chunks(), 100 * route.document_accuracy(),
                             route.num_judged_documents());
  }
  if (!route.empty()) std::cout << fmt::format("dead components: {}\n", route.num_dead());
  if (!json) return;
  Json report = to_json(evaluation);
  report["peak_rss_bytes"] = peak_rss_bytes();
  std::cout << report.dump() << "\n";
}

}  // namespace tessera
