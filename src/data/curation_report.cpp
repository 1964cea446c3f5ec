#include <xxhash.h>

#include <algorithm>

#include "data/curate.h"
#include "data/sample.h"

namespace tessera {
namespace {

constexpr size_t kSamples = 3, kSampleBytes = 160;

// One line: the beginning of the text, cut between characters, line ends as spaces.
std::string beginning(std::string_view text) {
  std::string line;
  for (const char c : cut_text(text, kSampleBytes)) {
    const bool is_space = static_cast<unsigned char>(c) <= ' ';
    if (!is_space) line += c;
    if (is_space && !line.empty() && line.back() != ' ') line += ' ';
  }
  return line;
}

}  // namespace

size_t CurationReport::row(const std::string& step, const std::string& reason) {
  const auto found = std::find_if(removals_.begin(), removals_.end(),
                                  [&](const Removal& r) { return r.step == step && r.reason == reason; });
  if (found != removals_.end()) return static_cast<size_t>(found - removals_.begin());
  removals_.push_back({.step = step, .reason = reason});
  picks_.emplace_back();
  return removals_.size() - 1;
}

void CurationReport::add(const std::string& step, const std::string& reason, int64_t bytes) {
  Removal& removal = removals_[row(step, reason)];
  ++removal.documents;
  removal.bytes += bytes;
}

void CurationReport::add(const std::string& step, const std::string& reason, const Document& dropped) {
  const size_t index = row(step, reason);
  Removal& removal = removals_[index];
  ++removal.documents;
  removal.bytes += static_cast<int64_t>(dropped.text.size());
  // The samples are those of the smallest hashes: spread over the corpus, and the same in every run.
  auto& picks = picks_[index];
  const uint64_t hash = XXH3_64bits(dropped.text.data(), dropped.text.size());
  const auto place = std::lower_bound(picks.begin(), picks.end(), hash);
  const auto at = place - picks.begin();
  if (static_cast<size_t>(at) >= kSamples) return;
  picks.insert(place, hash);
  removal.samples.insert(removal.samples.begin() + at, dropped.source + ": " + beginning(dropped.text));
  picks.resize(std::min(picks.size(), kSamples));
  removal.samples.resize(picks.size());
}

Json CurationReport::json() const {
  Json rows = Json::array();
  for (const Removal& r : removals_) {
    rows.push_back({{"step", r.step},
                    {"reason", r.reason},
                    {"documents", r.documents},
                    {"bytes", r.bytes},
                    {"samples", r.samples}});
  }
  return rows;
}

}  // namespace tessera
