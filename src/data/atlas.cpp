#include "data/atlas.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "core/unicode.h"
#include "data/route_statistics.h"
#include "data/token_class.h"

namespace tessera {
namespace {

constexpr size_t kContextBytes = 70;  // on each side
constexpr size_t kNumClasses = kTokenClasses.size();

struct AtlasText {
  size_t document = 0;
  std::vector<int32_t> tokens;  // bos first
  std::vector<int> classes;     // of each but the last: the tokens that are routed
  int domain = 0;
  ScoredText scored;
};

struct Pick {
  size_t window = 0;
  int token = 0;  // position in the window
  float weight = 0;
};

// All picks of the component `id` in the component layer `layer`.
struct Component {
  int layer = 0, id = 0;
  std::vector<Pick> picks;
};

std::vector<AtlasText> score_windows(Scorer& scorer, const Tokenizer& tokenizer, std::span<const Document> documents,
                                     const std::vector<std::string>& domains) {
  std::vector<AtlasText> windows;
  const int64_t length = scorer.context_length() - 1;
  for (size_t d = 0; d < documents.size(); ++d) {
    const std::vector<int32_t> tokens = tokenizer.encode(documents[d].text);
    const auto domain = std::find(domains.begin(), domains.end(), documents[d].domain) - domains.begin();
    for (int64_t begin = 0; begin < static_cast<int64_t>(tokens.size()); begin += length) {
      const int64_t end = std::min(begin + length, static_cast<int64_t>(tokens.size()));
      AtlasText& window = windows.emplace_back(AtlasText{d, {tokenizer.bos()}, {}, static_cast<int>(domain), {}});
      window.tokens.insert(window.tokens.end(), tokens.begin() + begin, tokens.begin() + end);
      for (size_t t = 0; t + 1 < window.tokens.size(); ++t)
        window.classes.push_back(t == 0 ? token_class("") : token_class(tokenizer.token_bytes(window.tokens[t])));
    }
  }
  constexpr size_t kWindowsACall = 16;
  for (size_t first = 0; first < windows.size(); first += kWindowsACall) {
    const size_t count = std::min(kWindowsACall, windows.size() - first);
    std::vector<std::vector<int32_t>> texts;
    for (size_t i = 0; i < count; ++i) texts.push_back(windows[first + i].tokens);
    std::vector<ScoredText> scored = scorer.score(texts);
    for (size_t i = 0; i < count; ++i) windows[first + i].scored = std::move(scored[i]);
  }
  return windows;
}

std::vector<Component> collect_picks(const std::vector<AtlasText>& windows, int num_layers, int num_components) {
  std::vector<Component> components;
  for (int l = 0; l < num_layers; ++l) {
    for (int c = 0; c < num_components; ++c) components.push_back({l, c, {}});
  }
  for (size_t w = 0; w < windows.size(); ++w) {
    const Route& route = windows[w].scored.route;
    size_t i = 0;
    for (int t = 0; t < route.num_tokens; ++t) {
      for (int l = 0; l < num_layers; ++l) {
        for (int k = 0; k < route.num_active; ++k, ++i) {
          const size_t component = static_cast<size_t>(l * num_components + route.components_TLK[i]);
          components[component].picks.push_back({w, t, route.weights_TLK[i]});
        }
      }
    }
  }
  return components;
}

// The route with the component's weight given to the others that were chosen with it.
Route without(Route route, int layer, int id) {
  const size_t k = static_cast<size_t>(route.num_active);
  for (int t = 0; t < route.num_tokens; ++t) {
    const size_t first = static_cast<size_t>(t * route.num_layers + layer) * k;
    const std::span<const int32_t> ids(&route.components_TLK[first], k);
    const std::span<float> weights(&route.weights_TLK[first], k);
    const auto at = std::find(ids.begin(), ids.end(), id);
    if (at == ids.end()) continue;
    weights[static_cast<size_t>(at - ids.begin())] = 0;
    float rest = 0;
    for (float w : weights) rest += w;
    for (float& w : weights) w = rest > 0 ? w / rest : 0;
  }
  return route;
}

// The windows to measure a removal in: those in which it is picked most, then the best for the classes that are still
// rare in them.
std::vector<size_t> removal_windows(const std::vector<AtlasText>& windows, const Component& component,
                                    const AtlasOptions& options) {
  using Counts = std::array<int64_t, kNumClasses + 1>;  // by class, and in all
  std::map<size_t, Counts> left;
  Counts wanted{}, seen{};
  for (const Pick& p : component.picks) {
    Counts& counts = left.try_emplace(p.window, Counts{}).first->second;
    for (const size_t c : {static_cast<size_t>(windows[p.window].classes[static_cast<size_t>(p.token)]), kNumClasses}) {
      ++counts[c];
      ++wanted[c];
    }
  }
  for (size_t c = 0; c < kNumClasses; ++c) wanted[c] = std::min(wanted[c], int64_t{options.class_tokens});
  std::vector<size_t> chosen;
  const auto take_best_for = [&](size_t c) {
    const auto best = std::max_element(left.begin(), left.end(),
                                       [c](const auto& a, const auto& b) { return a.second[c] < b.second[c]; });
    chosen.push_back(best->first);
    for (size_t i = 0; i <= kNumClasses; ++i) seen[i] += best->second[i];
    left.erase(best);
  };
  while (!left.empty() && static_cast<int>(chosen.size()) < options.removal_windows) take_best_for(kNumClasses);
  for (size_t c = 0; c < kNumClasses; ++c) {
    while (seen[c] < wanted[c] && static_cast<int>(chosen.size()) < options.most_windows) take_best_for(c);
  }
  return chosen;
}

// {class: [mean nats, tokens]}, and the mean over all under "removal_nats".
void add_removal(Scorer& scorer, const std::vector<AtlasText>& windows, const Component& component,
                 const AtlasOptions& options, Json& json) {
  std::array<double, kNumClasses> nats{};
  std::array<int64_t, kNumClasses> tokens{};
  for (const size_t w : removal_windows(windows, component, options)) {
    const AtlasText& window = windows[w];
    const Route route = without(window.scored.route, component.layer, component.id);
    const std::vector<ScoredText> scored = scorer.score({&window.tokens, 1}, {}, {&route, 1});
    for (const Pick& p : component.picks) {
      if (p.window != w) continue;
      const size_t t = static_cast<size_t>(p.token), c = static_cast<size_t>(window.classes[t]);
      nats[c] += static_cast<double>(window.scored.log_probs[t]) - static_cast<double>(scored[0].log_probs[t]);
      ++tokens[c];
    }
  }
  double all_nats = 0;
  int64_t all_tokens = 0;
  json["removal"] = Json::object();
  for (size_t c = 0; c < kNumClasses; ++c) {
    if (tokens[c] == 0) continue;
    json["removal"][kTokenClasses[c]] = {nats[c] / static_cast<double>(tokens[c]), tokens[c]};
    all_nats += nats[c];
    all_tokens += tokens[c];
  }
  json["removal_nats"] = all_tokens ? Json(all_nats / static_cast<double>(all_tokens)) : Json();
}

// Text around a token, whole characters only.
Json context_of(const AtlasText& window, int token, const Tokenizer& tokenizer) {
  const std::span<const int32_t> tokens(window.tokens);
  const size_t at = static_cast<size_t>(token);
  std::string before, after;
  for (size_t i = 1; i < tokens.size(); ++i) {
    if (i != at && !tokenizer.is_special(tokens[i])) (i < at ? before : after) += tokenizer.token_bytes(tokens[i]);
  }
  if (before.size() > kContextBytes) before = before.substr(before.size() - kContextBytes);
  while (!before.empty() && (static_cast<unsigned char>(before[0]) & 0xC0) == 0x80) before.erase(0, 1);
  after = after.substr(0, kContextBytes);
  after.resize(valid_utf8_prefix(after));
  return {before, at == 0 ? "" : std::string(tokenizer.token_bytes(tokens[at])), after};
}

// Where the component had the largest weights; each token once.
Json contexts_of(const Component& component, const std::vector<AtlasText>& windows, const Tokenizer& tokenizer,
                 int wanted) {
  std::vector<Pick> picks = component.picks;
  std::stable_sort(picks.begin(), picks.end(), [](const Pick& a, const Pick& b) { return a.weight > b.weight; });
  std::set<int32_t> seen;
  Json contexts = Json::array();
  for (const Pick& p : picks) {
    if (static_cast<int>(contexts.size()) == wanted) break;
    if (p.token == 0 || !seen.insert(windows[p.window].tokens[static_cast<size_t>(p.token)]).second) continue;
    contexts.push_back(context_of(windows[p.window], p.token, tokenizer));
  }
  return contexts;
}

Json shares(const std::vector<int64_t>& part, const std::vector<int64_t>& whole) {
  Json json = Json::array();
  for (size_t i = 0; i < whole.size(); ++i)
    json.push_back(whole[i] ? static_cast<double>(part[i]) / static_cast<double>(whole[i]) : 0.0);
  return json;
}

// [[name, times the mean share]], of what the component is picked for more than on the average.
template <class Names>
Json picked_for(const Names& names, const std::vector<int64_t>& part, const std::vector<int64_t>& whole, double share,
                size_t most) {
  const std::vector<double> bits = information_by_kind(part, whole);
  std::vector<size_t> order;
  const auto lift = [&](size_t i) { return static_cast<double>(part[i]) / static_cast<double>(whole[i]) / share; };
  for (size_t i = 0; i < whole.size(); ++i) {
    if (part[i] > 0 && lift(i) > 1 && bits[i] > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bits[a] > bits[b]; });
  Json json = Json::array();
  for (size_t i = 0; i < std::min(most, order.size()); ++i) json.push_back({names[order[i]], lift(order[i])});
  return json;
}

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

}  // namespace

std::vector<double> information_by_kind(std::span<const int64_t> yes, std::span<const int64_t> all) {
  double num_yes = 0, num = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    num_yes += static_cast<double>(yes[i]);
    num += static_cast<double>(all[i]);
  }
  const auto part = [&](double joint, double one, double other) {
    return joint > 0 ? joint / num * std::log2(joint * num / (one * other)) : 0;
  };
  std::vector<double> bits;
  for (size_t i = 0; i < all.size(); ++i) {
    const double of_kind = static_cast<double>(all[i]), picked = static_cast<double>(yes[i]);
    bits.push_back(std::max(0.0, part(picked, num_yes, of_kind) + part(of_kind - picked, num - num_yes, of_kind)));
  }
  return bits;
}

Json build_atlas(Scorer& scorer, const Tokenizer& tokenizer, std::span<const Document> documents,
                 const Hierarchy& hierarchy, const AtlasOptions& options) {
  const int n = num_components(hierarchy);
  if (n == 0) {
    throw Error(ErrorCode::kData, "the model is dense: it has no components to look at",
                "an atlas needs a model with components, for example runs/demo");
  }
  std::vector<std::string> domains;
  for (const Document& d : documents) {
    if (std::find(domains.begin(), domains.end(), d.domain) == domains.end()) domains.push_back(d.domain);
  }
  const std::vector<AtlasText> windows = score_windows(scorer, tokenizer, documents, domains);
  if (windows.empty()) throw Error(ErrorCode::kData, "there is no text to make an atlas from");
  const int num_layers = windows[0].scored.route.num_layers;
  std::vector<int64_t> class_tokens(kNumClasses, 0), domain_tokens(domains.size(), 0);
  int64_t num_tokens = 0;
  for (const AtlasText& window : windows) {
    for (int c : window.classes) ++class_tokens[static_cast<size_t>(c)];
    domain_tokens[static_cast<size_t>(window.domain)] += static_cast<int64_t>(window.classes.size());
    num_tokens += static_cast<int64_t>(window.classes.size());
  }
  const std::vector<int> owner = owner_of_components(hierarchy);
  Json json = {{"classes", kTokenClasses},    {"domains", domains},           {"layers", num_layers},
               {"tokens", num_tokens},        {"class_tokens", class_tokens}, {"domain_tokens", domain_tokens},
               {"components", Json::array()}, {"dead", Json::array()}};
  for (const Domain& d : hierarchy.domains) json["owners"].push_back({{"name", d.name}, {"always", d.always}});
  const std::vector<Component> components = collect_picks(windows, num_layers, n);
  for (size_t i = 0; i < components.size(); ++i) {
    const Component& component = components[i];
    const Domain& domain = hierarchy.domains[static_cast<size_t>(owner[static_cast<size_t>(component.id)])];
    std::vector<int64_t> classes(kNumClasses, 0), of_domain(domains.size(), 0);
    for (const Pick& p : component.picks) {
      ++classes[static_cast<size_t>(windows[p.window].classes[static_cast<size_t>(p.token)])];
      ++of_domain[static_cast<size_t>(windows[p.window].domain)];
    }
    const auto own = std::find(domains.begin(), domains.end(), domain.name);
    const size_t own_index = static_cast<size_t>(own - domains.begin());
    const bool has_text = own != domains.end();
    const bool all_texts = domain.always || hierarchy.domains.size() == 1;
    const bool dead = all_texts ? is_dead(static_cast<int64_t>(component.picks.size()), num_tokens)
                                : has_text && is_dead(of_domain[own_index], domain_tokens[own_index]);
    const int first = static_cast<int>(std::find(owner.begin(), owner.end(), owner[static_cast<size_t>(component.id)]) -
                                       owner.begin());
    const size_t within = static_cast<size_t>(component.id - first);
    const std::string name =
        domain.components.empty() ? fmt::format("{} {}", domain.name, within) : domain.components[within];
    const double share = static_cast<double>(component.picks.size()) / static_cast<double>(num_tokens);
    Json one = {{"name", name},
                {"layer", component.layer},
                {"id", component.id},
                {"owner", owner[static_cast<size_t>(component.id)]},
                {"bank", bank_of(hierarchy, component.id)},
                {"share", share},
                {"class_bits", sum(information_by_kind(classes, class_tokens))},
                {"domain_bits", sum(information_by_kind(of_domain, domain_tokens))},
                {"picked_for",
                 {{"classes", picked_for(kTokenClasses, classes, class_tokens, share, 2)},
                  {"domains", picked_for(domains, of_domain, domain_tokens, share, 1)}}},
                {"classes", shares(classes, class_tokens)},
                {"domains", shares(of_domain, domain_tokens)},
                {"dead", dead},
                {"contexts", contexts_of(component, windows, tokenizer, options.contexts)}};
    if (!component.picks.empty()) add_removal(scorer, windows, component, options, one);
    if (dead) json["dead"].push_back(fmt::format("layer {}, {}", component.layer, name));
    json["components"].push_back(std::move(one));
    if (options.progress) options.progress(static_cast<double>(i + 1), static_cast<double>(components.size()));
  }
  return json;
}

}  // namespace tessera
