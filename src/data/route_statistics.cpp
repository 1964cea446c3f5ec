#include "data/route_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace tessera {
namespace {

constexpr int64_t kDocumentTokens = 512;  // what the document's choice is made from
constexpr int kAllTexts = -1, kNoText = -2;

}  // namespace

RouteStatistics::RouteStatistics(const Hierarchy& hierarchy, std::vector<std::string> text_domains,
                                 int64_t num_documents, bool judges_level1)
    : text_domains_(std::move(text_domains)), owners_N_(owner_of_components(hierarchy)) {
  for (const Domain& d : hierarchy.domains) {
    owner_domains_.push_back(d.name);
    const auto text = std::find(text_domains_.begin(), text_domains_.end(), d.name);
    const bool has_text = text != text_domains_.end();
    const bool only_one = hierarchy.domains.size() == 1;  // a flat MoE's, whatever its name
    texts_of_owner_.push_back(d.always || only_one ? kAllTexts
                              : has_text           ? static_cast<int>(text - text_domains_.begin())
                                                   : kNoText);
  }
  routed_names_ = routed_names(hierarchy);
  for (const std::string& name : text_domains_) labels_.push_back(judges_level1 ? routed_index(hierarchy, name) : -1);
  owner_picks_.assign(text_domains_.size(), std::vector<int64_t>(owner_domains_.size(), 0));
  text_tokens_.assign(text_domains_.size(), 0);
  domain_picks_.resize(text_domains_.size());
  log_pi_.resize(static_cast<size_t>(num_documents));
  document_labels_.assign(static_cast<size_t>(num_documents), -1);
}

void RouteStatistics::add(const Route& route, int text_domain, int64_t document, int64_t begin) {
  const size_t num_tokens = static_cast<size_t>(route.num_tokens), num_domains = static_cast<size_t>(route.num_domains);
  const size_t num_layers = static_cast<size_t>(route.num_layers), num_active = static_cast<size_t>(route.num_active);

  if (!route.components_TLK.empty()) {
    TESSERA_CHECK(route.components_TLK.size() == num_tokens * num_layers * num_active, "the route's sizes don't match");
    if (component_picks_LN_.empty()) component_picks_LN_.assign(num_layers, std::vector<int64_t>(owners_N_.size(), 0));
    TESSERA_CHECK(component_picks_LN_.size() == num_layers, "routes of different models");
    std::vector<int64_t>& picks_by_owner = owner_picks_.at(static_cast<size_t>(text_domain));
    std::vector<int64_t>& picks_LN = domain_picks_[static_cast<size_t>(text_domain)];
    picks_LN.resize(num_layers * owners_N_.size(), 0);
    for (size_t i = 0; i < route.components_TLK.size(); ++i) {
      const size_t component = static_cast<size_t>(route.components_TLK[i]);
      TESSERA_CHECK(component < owners_N_.size(), "component " + std::to_string(component) + " isn't in the hierarchy");
      const size_t layer = i / num_active % num_layers;
      ++component_picks_LN_[layer][component];
      ++picks_LN[layer * owners_N_.size() + component];
      ++picks_by_owner[static_cast<size_t>(owners_N_[component])];
    }
    picks_ += static_cast<int64_t>(route.components_TLK.size());
    text_tokens_[static_cast<size_t>(text_domain)] += route.num_tokens;
  }

  const int label = labels_.at(static_cast<size_t>(text_domain));
  if (num_domains < 2 || label < 0) return;
  TESSERA_CHECK(num_domains == routed_names_.size(), "the route has another number of domains than the hierarchy");
  TESSERA_CHECK(route.pi_CM.size() == route.chunk_starts_C.size() * num_domains, "the route's sizes don't match");
  std::vector<double>& log_pi = log_pi_.at(static_cast<size_t>(document));
  document_labels_[static_cast<size_t>(document)] = label;
  for (size_t c = 0; c < route.chunk_starts_C.size(); ++c) {
    const float* pi = &route.pi_CM[c * num_domains];
    if (is_undecided({pi, num_domains})) continue;
    ++chunks_;
    right_chunks_ += std::max_element(pi, pi + num_domains) - pi == label;
    const int64_t first = begin + route.chunk_starts_C[c];
    const int64_t last = begin + (c + 1 < route.chunk_starts_C.size() ? route.chunk_starts_C[c + 1] : route.num_tokens);
    const int64_t counted = std::min(last, kDocumentTokens) - first;
    if (counted <= 0) continue;
    log_pi.resize(num_domains, 0.0);
    for (size_t d = 0; d < num_domains; ++d) {
      log_pi[d] += static_cast<double>(counted) * std::log(std::max(static_cast<double>(pi[d]), 1e-12));
    }
  }
}

double RouteStatistics::entropy(int layer) const {
  const std::vector<int64_t>& picks = component_picks_LN_.at(static_cast<size_t>(layer));
  double total = 0, entropy = 0;
  for (int64_t n : picks) total += static_cast<double>(n);
  for (int64_t n : picks) {
    if (n > 0) entropy -= static_cast<double>(n) / total * std::log(static_cast<double>(n) / total);
  }
  return picks.size() < 2 ? 1.0 : entropy / std::log(static_cast<double>(picks.size()));
}

int RouteStatistics::num_dead() const {
  const int64_t all_tokens = std::accumulate(text_tokens_.begin(), text_tokens_.end(), int64_t{0});
  int dead = 0;
  for (size_t layer = 0; layer < component_picks_LN_.size(); ++layer) {
    for (size_t c = 0; c < owners_N_.size(); ++c) {
      const int text = texts_of_owner_[static_cast<size_t>(owners_N_[c])];
      if (text == kAllTexts) {
        dead += is_dead(component_picks_LN_[layer][c], all_tokens);
      } else if (text != kNoText && text_tokens_[static_cast<size_t>(text)] > 0) {
        dead += is_dead(domain_picks_[static_cast<size_t>(text)][layer * owners_N_.size() + c],
                        text_tokens_[static_cast<size_t>(text)]);
      }
    }
  }
  return dead;
}

double RouteStatistics::chunk_accuracy() const {
  return chunks_ == 0 ? -1.0 : static_cast<double>(right_chunks_) / static_cast<double>(chunks_);
}

int64_t RouteStatistics::num_judged_documents() const {
  return std::count_if(log_pi_.begin(), log_pi_.end(), [](const auto& log_pi) { return !log_pi.empty(); });
}

double RouteStatistics::document_accuracy() const {
  int64_t right = 0;
  for (size_t i = 0; i < log_pi_.size(); ++i) {
    if (log_pi_[i].empty()) continue;  // too short for a decision, or of a label that level 1 doesn't know
    right += std::max_element(log_pi_[i].begin(), log_pi_[i].end()) - log_pi_[i].begin() == document_labels_[i];
  }
  const int64_t judged = num_judged_documents();
  return judged == 0 ? -1.0 : static_cast<double>(right) / static_cast<double>(judged);
}

Json RouteStatistics::to_json() const {
  Json load = Json::array(), entropies = Json::array();
  for (const std::vector<int64_t>& row : owner_picks_) {
    int64_t whole = 0;
    for (int64_t n : row) whole += n;
    std::vector<double> shares;
    for (int64_t n : row) shares.push_back(whole ? static_cast<double>(n) / static_cast<double>(whole) : 0.0);
    load.push_back(shares);
  }
  for (int l = 0; l < num_layers(); ++l) entropies.push_back(entropy(l));
  Json domain_components = Json::array();
  for (const std::vector<int64_t>& picks_LN : domain_picks_) {
    std::vector<int64_t> over_layers(owners_N_.size(), 0);
    for (size_t i = 0; i < picks_LN.size(); ++i) over_layers[i % owners_N_.size()] += picks_LN[i];
    domain_components.push_back(over_layers);
  }
  const auto share_or_null = [](double share) { return share < 0 ? Json() : Json(share); };
  return {{"text_domains", text_domains_},
          {"owner_domains", owner_domains_},
          {"picks", owner_picks_},
          {"load", load},
          {"components", component_picks_LN_},
          {"domain_components", domain_components},
          {"component_owners", owners_N_},
          {"entropy", entropies},
          {"dead_components", num_dead()},
          {"chunk_accuracy", share_or_null(chunk_accuracy())},
          {"document_accuracy", share_or_null(document_accuracy())}};
}

}  // namespace tessera
