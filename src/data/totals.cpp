#include "data/totals.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <numeric>

namespace tessera {
namespace {

// "train" first, then what is evaluated.
int split_rank(const std::string& split) { return split == "train" ? 0 : split == "heldout" ? 1 : 2; }

std::string cell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{:.2f}", value.get<double>());
  if (!value.is_array()) return value.dump();
  std::string list;
  for (const Json& item : value) list += (list.empty() ? "" : "; ") + cell(item);
  return list;
}

void sort_rows(Json& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return split_rank(a["split"].get<std::string>()) < split_rank(b["split"].get<std::string>());
  });
}

}  // namespace

void Totals::add(const std::string& split, const std::string& domain, const std::string& source,
                 const std::vector<std::string>& licences, int64_t bytes, int64_t tokens) {
  Group& group = groups_[{split, domain, source}];
  for (const auto& licence : licences) {
    if (!licence.empty()) group.licences.insert(licence);
  }
  group.bytes += bytes;
  group.lengths.push_back(tokens);
}

Json Totals::summary(const Group& group) {
  auto lengths = group.lengths;
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(lengths.size() / 2);
  std::nth_element(lengths.begin(), middle, lengths.end());
  return {{"documents", lengths.size()},
          {"bytes", group.bytes},
          {"tokens", tokens},
          {"bytes_per_token", tokens ? static_cast<double>(group.bytes) / static_cast<double>(tokens) : 0.0},
          {"longest", *std::max_element(lengths.begin(), lengths.end())},
          {"median", *middle}};
}

Json Totals::by_domain() const {
  std::map<std::pair<std::string, std::string>, Group> domains;
  for (const auto& [key, group] : groups_) {
    Group& sum = domains[{std::get<0>(key), std::get<1>(key)}];
    sum.bytes += group.bytes;
    sum.lengths.insert(sum.lengths.end(), group.lengths.begin(), group.lengths.end());
  }
  Json rows = Json::array();
  for (const auto& [key, group] : domains) {
    Json row = {{"split", key.first}, {"domain", key.second}};
    row.update(summary(group));
    rows.push_back(std::move(row));
  }
  sort_rows(rows);
  return rows;
}

Json Totals::by_source() const {
  Json rows = Json::array();
  for (const auto& [key, group] : groups_) {
    const auto& [split, domain, source] = key;
    Json row = {{"split", split}, {"domain", domain}, {"source", source}, {"licences", group.licences}};
    row.update(summary(group));
    rows.push_back(std::move(row));
  }
  sort_rows(rows);
  return rows;
}

std::string format_rows(const Json& rows, bool markdown) {
  if (rows.empty()) return "";
  std::vector<std::vector<std::string>> lines(1);
  for (const auto& [key, value] : rows[0].items()) lines[0].push_back(key);
  for (const Json& row : rows) {
    auto& line = lines.emplace_back();
    for (const std::string& key : lines[0]) line.push_back(row.contains(key) ? cell(row[key]) : "");
  }
  std::vector<size_t> widths(lines[0].size());
  for (const auto& line : lines) {
    for (size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], line[c].size());
  }
  std::string table;
  for (size_t r = 0; r < lines.size(); ++r) {
    std::string text;
    for (size_t c = 0; c < widths.size(); ++c) {
      const bool is_number = rows[0][lines[0][c]].is_number();
      if (c > 0 || markdown) text += markdown ? "| " : "  ";
      text += is_number ? fmt::format("{:>{}}", lines[r][c], widths[c]) : fmt::format("{:<{}}", lines[r][c], widths[c]);
      if (markdown) text += ' ';
    }
    table += text + (markdown ? "|\n" : "\n");
    if (r > 0 || !markdown) continue;
    for (size_t c = 0; c < widths.size(); ++c) table += rows[0][lines[0][c]].is_number() ? "| ---: " : "| --- ";
    table += "|\n";
  }
  return table;
}

}  // namespace tessera
