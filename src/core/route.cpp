#include "core/route.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace tessera {

int chunk_of(int position, int chunk_tokens) {
  const int second = std::min(64, chunk_tokens);  // the second boundary
  if (position < 16) return 0;
  if (position < second) return 1;
  return (second > 16 ? 2 : 1) + (position - second) / chunk_tokens;
}

std::vector<int32_t> chunk_starts(int num_tokens, int chunk_tokens) {
  std::vector<int32_t> starts;
  for (int t = 0; t < num_tokens; ++t) {
    if (t == 0 || chunk_of(t, chunk_tokens) != chunk_of(t - 1, chunk_tokens)) starts.push_back(t);
  }
  return starts;
}

size_t chunk_at(const Route& route, int64_t token) {
  const auto after = std::upper_bound(route.chunk_starts_C.begin(), route.chunk_starts_C.end(), token);
  return static_cast<size_t>(after - route.chunk_starts_C.begin()) - 1;
}

// Probability from which an added domain may be the most probable one: below it a chunk that is taken from a domain
// trained on such text costs more than one that is left to it (docs/LOG.md).
constexpr float kLeastOfAdded = 0.5f;

std::vector<uint8_t> active_domains(std::span<const float> pi, std::span<const uint8_t> previous,
                                    std::span<const uint8_t> allowed, double margin, double hysteresis,
                                    std::span<const uint8_t> added) {
  const size_t n = pi.size();
  std::vector<uint8_t> active(n, 0);
  const auto largest = [&](const auto& may_be) {  // the first of equals; n: there is none
    size_t best = n;
    for (size_t d = 0; d < n; ++d) {
      if ((allowed.empty() || allowed[d]) && may_be(d) && (best == n || pi[d] > pi[best])) best = d;
    }
    return best;
  };
  const auto is_added = [&](size_t d) { return !added.empty() && added[d]; };
  size_t first = largest([&](size_t d) { return !is_added(d) || pi[d] >= kLeastOfAdded; });
  if (first == n) first = largest([](size_t) { return true; });  // no other is allowed
  if (first == n) return active;
  active[first] = 1;
  const size_t second = largest([&](size_t d) { return d != first && !is_added(d); });
  if (second == n) return active;
  const double gap = static_cast<double>(pi[first]) - static_cast<double>(pi[second]);
  const bool was_active = !previous.empty() && previous[second];
  if (gap < margin || (was_active && gap <= margin + hysteresis)) active[second] = 1;
  return active;
}

void restrict_to_allowed(std::span<float> pi, std::span<const uint8_t> allowed) {
  if (allowed.empty()) return;
  float total = 0, num_allowed = 0;
  for (size_t d = 0; d < pi.size(); ++d) {
    if (!allowed[d]) pi[d] = 0;
    total += pi[d];
    num_allowed += allowed[d];
  }
  for (size_t d = 0; d < pi.size(); ++d) {
    if (allowed[d]) pi[d] = total > 0 ? pi[d] / total : 1 / num_allowed;
  }
}

void logits_to_pi(std::span<float> logits, const DomainRouter& router, std::span<const uint8_t> allowed) {
  constexpr float kLeast = 1e-3f;  // so that no domain is ruled out
  const float temperature = static_cast<float>(router.temperature), floor = static_cast<float>(router.floor);
  const auto is_allowed = [&](size_t d) { return allowed.empty() || allowed[d]; };
  // Each allowed one becomes f(itself), the others 0; the sum 1.
  const auto normalise = [&](const auto& f) {
    float total = 0;
    for (size_t d = 0; d < logits.size(); ++d) total += logits[d] = is_allowed(d) ? f(logits[d]) : 0.0f;
    for (float& x : logits) x /= total == 0 ? 1.0f : total;
  };
  float largest = -std::numeric_limits<float>::infinity();
  for (size_t d = 0; d < logits.size(); ++d) {
    if (is_allowed(d)) largest = std::max(largest, logits[d]);
  }
  normalise([&](float x) { return std::exp((x - largest) / temperature); });
  if (floor > 0) normalise([&](float x) { return std::max(x - floor, kLeast); });
}

std::vector<uint8_t> added_domains(const Hierarchy& h) {
  std::vector<uint8_t> added;
  for (int d : routed_domains(h)) added.push_back(h.domains[static_cast<size_t>(d)].added);
  return added;
}

std::vector<float> undecided_pi(const Architecture& a, std::span<const uint8_t> allowed) {
  const auto uniform = [&](bool with_added) {
    std::vector<float> pi;
    for (int d : routed_domains(a.hierarchy)) {
      const bool is_allowed = allowed.empty() || allowed[pi.size()];
      pi.push_back(is_allowed && (with_added || !a.hierarchy.domains[static_cast<size_t>(d)].added) ? 1.0f : 0.0f);
    }
    const float total = std::accumulate(pi.begin(), pi.end(), 0.0f);
    for (float& p : pi) p /= std::max(1.0f, total);
    return std::pair(pi, total);
  };
  const auto [pi, total] = uniform(a.domain_router.kind == "uniform");  // which never decides
  return total > 0 ? pi : uniform(true).first;
}

bool is_undecided(std::span<const float> pi) {
  float least = 1, most = 0;
  int several = 0;
  for (const float p : pi) {
    if (p > 0) least = std::min(least, p), ++several;
    most = std::max(most, p);
  }
  return several != 1 && most - least < 1e-6f;
}

Json to_json(const Route& r) {
  return {{"num_tokens", r.num_tokens}, {"num_domains", r.num_domains},     {"num_layers", r.num_layers},
          {"num_active", r.num_active}, {"chunk_starts", r.chunk_starts_C}, {"pi", r.pi_CM},
          {"active", r.active_CM},      {"components", r.components_TLK},   {"weights", r.weights_TLK}};
}

namespace {

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::kData, "route: " + what); }

// nlohmann's own conversions cut 3.5 to 3 and 2^32 + 1 to 1.
int64_t whole_number(const Json& json, const std::string& key, int64_t least, int64_t most) {
  const bool fits = json.is_number_integer() &&
                    !(json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) &&
                    json.get<int64_t>() >= least && json.get<int64_t>() <= most;
  if (!fits) {
    fail(key + ": expected a whole number from " + std::to_string(least) + " to " + std::to_string(most) + ", found " +
         json.dump());
  }
  return json.get<int64_t>();
}

const Json& member(const Json& json, const std::string& key) {
  if (!json.is_object() || !json.contains(key)) fail("has no \"" + key + "\"");
  return json.at(key);
}

const Json& list(const Json& json, const std::string& key) {
  const Json& found = member(json, key);
  if (!found.is_array()) fail(key + " is no list");
  return found;
}

template <class T>
std::vector<T> whole_numbers(const Json& json, const std::string& key, int64_t least, int64_t most) {
  std::vector<T> values;
  for (const Json& value : list(json, key)) values.push_back(static_cast<T>(whole_number(value, key, least, most)));
  return values;
}

std::vector<float> shares(const Json& json, const std::string& key) {
  constexpr double kMost = 1.001;  // 1 and what rounding adds
  std::vector<float> values;
  for (const Json& value : list(json, key)) {
    if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= kMost))
      fail(key + ": expected numbers from 0 to 1, found " + value.dump());
    values.push_back(value.get<float>());
  }
  return values;
}

}  // namespace

Route route_from_json(const Json& json, const Architecture& a) {
  Route r;
  const auto size = [&](const char* key) {
    return static_cast<int>(whole_number(member(json, key), key, 0, INT32_MAX));
  };
  r.num_tokens = size("num_tokens");
  r.num_domains = size("num_domains");
  r.num_layers = size("num_layers");
  r.num_active = size("num_active");
  const Hierarchy& h = a.hierarchy;
  if (r.num_layers != num_component_layers(a)) fail("num_layers does not match the model");
  if (r.num_layers > 0 && r.num_domains != static_cast<int>(routed_domains(h).size()))
    fail("num_domains does not match the model");
  if (r.num_layers > 0 && r.num_active != h.num_active) fail("num_active does not match the model");
  const int n = num_components(h);
  r.chunk_starts_C = whole_numbers<int32_t>(json, "chunk_starts", 0, std::max(0, r.num_tokens - 1));
  r.pi_CM = shares(json, "pi");
  r.active_CM = whole_numbers<uint8_t>(json, "active", 0, 1);
  r.components_TLK = whole_numbers<int32_t>(json, "components", 0, n - 1);
  r.weights_TLK = shares(json, "weights");
  for (size_t c = 0; c < r.chunk_starts_C.size(); ++c) {
    if (c == 0 ? r.chunk_starts_C[c] != 0 : r.chunk_starts_C[c] <= r.chunk_starts_C[c - 1])
      fail("chunk_starts must rise from 0");
  }
  const size_t chunks = r.chunk_starts_C.size(), domains = static_cast<size_t>(r.num_domains);
  if (r.pi_CM.size() != chunks * domains || r.active_CM.size() != chunks * domains)
    fail("pi and active need chunks x domains entries");
  const size_t choices =
      static_cast<size_t>(r.num_tokens) * static_cast<size_t>(r.num_layers) * static_cast<size_t>(r.num_active);
  if (r.components_TLK.size() != choices || r.weights_TLK.size() != choices)
    fail("components and weights need tokens x layers x active entries");
  return r;
}

std::vector<uint8_t> allowed_domains(const Hierarchy& h, const std::vector<std::string>& allow,
                                     const std::vector<std::string>& deny, const std::string& what) {
  if (allow.empty() && deny.empty()) return {};
  const std::vector<std::string> known = routed_names(h);
  std::vector<uint8_t> allowed(known.size(), allow.empty());
  const auto set = [&](const std::vector<std::string>& names, uint8_t value) {
    for (const std::string& name : names) {
      const auto it = std::find(known.begin(), known.end(), name);
      if (it == known.end()) {
        std::string list;
        for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
        throw Error(ErrorCode::kUsage, what + ": the model has no domain \"" + name + "\" to route to",
                    "it has " + list);
      }
      allowed[static_cast<size_t>(it - known.begin())] = value;
    }
  };
  set(allow, 1);
  for (const std::string& name : deny) {
    if (std::find(allow.begin(), allow.end(), name) != allow.end())
      throw Error(ErrorCode::kUsage, what + ": '" + name + "' is both asked for and barred",
                  "leave one of the two out");
  }
  set(deny, 0);
  if (std::count(allowed.begin(), allowed.end(), 0) == 0) return {};
  // The smallest choice that is ever offered: the general domain's components, and one allowed domain's.
  int general = 0, smallest = -1;
  size_t routed = 0;
  for (const Domain& d : h.domains) {
    if (d.always) general += d.num_components;
    if (!d.always && allowed[routed++])
      smallest = smallest < 0 ? d.num_components : std::min(smallest, d.num_components);
  }
  if (general + std::max(0, smallest) < h.num_active) {
    throw Error(ErrorCode::kUsage, what + ": every domain is denied, and no general domain has components to serve",
                "allow at least one domain");
  }
  return allowed;
}

}  // namespace tessera
