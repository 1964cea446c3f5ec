#include "apps/heat_map.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace tessera {
namespace {

constexpr int kCell = 18, kLeft = 120, kTop = 64, kGap = 6;

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

// White to dark blue; the root makes small shares visible.
std::string colour(double share, double largest) {
  const double x = largest > 0 ? std::sqrt(share / largest) : 0;
  const auto mix = [&](int light, int dark) { return static_cast<int>(light + (dark - light) * x); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(247, 8), mix(251, 48), mix(255, 107));
}

}  // namespace

std::string heat_map_svg(const Json& statistics, const Hierarchy& h) {
  const size_t n = static_cast<size_t>(num_components(h));
  const Json rows = statistics.value("domain_components", Json()), names = statistics.value("text_domains", Json());
  bool whole = rows.is_array() && names.is_array() && rows.size() == names.size() && !rows.empty();
  for (size_t r = 0; whole && r < rows.size(); ++r) {
    whole = rows[r].is_array() && rows[r].size() == n && names[r].is_string() &&
            std::all_of(rows[r].begin(), rows[r].end(), [](const Json& count) { return count.is_number(); });
  }
  if (!whole) {
    throw Error(ErrorCode::kData, "the run's route statistics have no \"domain_components\" of the model's components",
                "train or evaluate it with this version");
  }
  const int num_gaps = static_cast<int>(h.domains.size()) - 1;
  const int width = kLeft + kCell * static_cast<int>(n) + kGap * num_gaps + 16,
            height = kTop + kCell * static_cast<int>(rows.size()) + 24;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"18\">Share of a domain's picks (row) "
      "that each component "
      "got, all layers</text>\n",
      width, height);
  std::vector<int> x_of;
  int x = kLeft;
  for (const Domain& d : h.domains) {
    svg += fmt::format("<text x=\"{}\" y=\"{}\">{}</text>\n", x, kTop - 22, escaped(d.name));
    for (int c = 0; c < d.num_components; ++c, x += kCell) x_of.push_back(x);
    x += kGap;
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    std::vector<double> picks;
    double sum = 0, largest = 0;
    for (const Json& count : rows[r]) picks.push_back(std::max(0.0, count.get<double>()));
    for (double count : picks) sum += count, largest = std::max(largest, count);
    const int y = kTop + kCell * static_cast<int>(r);
    svg += fmt::format("<text x=\"8\" y=\"{}\">{}</text>\n", y + 13, escaped(names[r].get<std::string>()));
    for (size_t c = 0; c < n; ++c) {
      const double share = sum > 0 ? picks[c] / sum : 0;
      svg += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"><title>{}: component {}, {:.2f} "
          "%</title></rect>\n",
          x_of[c], y, kCell - 1, kCell - 1, colour(share, sum > 0 ? largest / sum : 0),
          escaped(names[r].get<std::string>()), c, 100 * share);
    }
  }
  for (size_t c = 0; c < n; c += 4)
    svg += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"#666\">{}</text>\n", x_of[c], kTop - 6, c);
  return svg + "</svg>\n";
}

}  // namespace tessera
