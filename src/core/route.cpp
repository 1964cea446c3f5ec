#include "core/route.h"

#include <algorithm>

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

std::vector<uint8_t> active_domains(std::span<const float> pi, std::span<const uint8_t> previous,
                                    std::span<const uint8_t> allowed, double margin, double hysteresis) {
  const size_t n = pi.size();
  std::vector<uint8_t> active(n, 0);
  auto is_allowed = [&](size_t d) { return allowed.empty() || allowed[d]; };
  size_t first = n, second = n;
  for (size_t d = 0; d < n; ++d) {
    if (!is_allowed(d)) continue;
    if (first == n || pi[d] > pi[first]) {
      second = first;
      first = d;
    } else if (second == n || pi[d] > pi[second]) {
      second = d;
    }
  }
  if (first == n) return active;
  active[first] = 1;
  if (second == n) return active;
  const double gap = static_cast<double>(pi[first]) - static_cast<double>(pi[second]);
  const bool was_active = !previous.empty() && previous[second];
  if (gap < margin || (was_active && gap <= margin + hysteresis)) active[second] = 1;
  return active;
}

Json to_json(const Route& r) {
  return {{"num_tokens", r.num_tokens}, {"num_domains", r.num_domains},     {"num_layers", r.num_layers},
          {"num_active", r.num_active}, {"chunk_starts", r.chunk_starts_C}, {"pi", r.pi_CM},
          {"active", r.active_CM},      {"components", r.components_TLK},   {"weights", r.weights_TLK}};
}

Route route_from_json(const Json& json, const Architecture& a) {
  Route r;
  auto fail = [](const std::string& what) { throw Error(ErrorCode::kData, "route: " + what); };
  try {
    json.at("num_tokens").get_to(r.num_tokens);
    json.at("num_domains").get_to(r.num_domains);
    json.at("num_layers").get_to(r.num_layers);
    json.at("num_active").get_to(r.num_active);
    json.at("chunk_starts").get_to(r.chunk_starts_C);
    json.at("pi").get_to(r.pi_CM);
    json.at("active").get_to(r.active_CM);
    json.at("components").get_to(r.components_TLK);
    json.at("weights").get_to(r.weights_TLK);
  } catch (const nlohmann::json::exception& e) {
    fail(e.what());
  }
  const Hierarchy& h = a.hierarchy;
  if (r.num_tokens < 0) fail("num_tokens is negative");
  if (r.num_domains != static_cast<int>(routed_domains(h).size())) fail("num_domains does not match the model");
  if (r.num_layers != num_component_layers(a)) fail("num_layers does not match the model");
  if (r.num_layers > 0 && r.num_active != h.num_active) fail("num_active does not match the model");
  const size_t chunks = r.chunk_starts_C.size(), domains = static_cast<size_t>(r.num_domains);
  if (r.pi_CM.size() != chunks * domains || r.active_CM.size() != chunks * domains)
    fail("pi and active need chunks x domains entries");
  const size_t choices =
      static_cast<size_t>(r.num_tokens) * static_cast<size_t>(r.num_layers) * static_cast<size_t>(r.num_active);
  if (r.components_TLK.size() != choices || r.weights_TLK.size() != choices)
    fail("components and weights need tokens x layers x active entries");
  const int n = num_components(h);
  for (int32_t id : r.components_TLK) {
    if (id < 0 || id >= n) fail("component " + std::to_string(id) + " is not in 0.." + std::to_string(n - 1));
  }
  return r;
}

}  // namespace tessera
