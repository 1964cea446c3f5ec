#include "data/input.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

bool is_document_file(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".jsonl") || name.ends_with(".jsonl.zst");
}

struct Line {
  std::string text, where;
};

// Parses the lines in parallel and appends the documents in order.
void parse_lines(std::vector<Line>& lines, std::vector<Document>& documents, int64_t* num_skipped, int num_threads) {
  const size_t first = documents.size();
  documents.resize(first + lines.size());
  std::vector<char> broken(lines.size());
  parallel_for(
      static_cast<int64_t>(lines.size()),
      [&](int64_t i) {
        const auto index = static_cast<size_t>(i);
        try {
          documents[first + index] = parse_document(lines[index].text, lines[index].where);
        } catch (const Error& e) {
          broken[index] = 1;
        }
      },
      num_threads, 16);
  size_t kept = first;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (broken[i]) {
      if (!num_skipped)
        parse_document(lines[i].text, lines[i].where);  // throws: the first broken line, on any number of threads
      if (++*num_skipped <= 3) log_warn("skipped {}", lines[i].where);
      continue;
    }
    if (kept != first + i) documents[kept] = std::move(documents[first + i]);
    ++kept;
  }
  documents.resize(kept);
  lines.clear();
}

}  // namespace

std::vector<fs::path> find_document_files(const std::vector<fs::path>& inputs) {
  std::vector<fs::path> files;
  for (const fs::path& input : inputs) {
    if (!fs::exists(input)) {
      throw Error(ErrorCode::kFile, "there is no " + input.string(),
                  "check the path; `./tessera data fetch small` fetches a corpus");
    }
    if (!fs::is_directory(input)) {
      files.push_back(input);
      continue;
    }
    const size_t first = files.size();
    for (const auto& entry : fs::directory_iterator(input)) {
      if (entry.is_regular_file() && is_document_file(entry.path())) files.push_back(entry.path());
    }
    if (files.size() == first) throw Error(ErrorCode::kFile, input.string() + " holds no .jsonl or .jsonl.zst file");
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(first), files.end());
  }
  return files;
}

std::vector<Document> read_all_documents(const std::vector<fs::path>& files, int64_t* num_skipped, int num_threads) {
  constexpr size_t kBatchBytes = 32'000'000;
  std::vector<Document> documents;
  Progress progress("read");
  for (size_t f = 0; f < files.size(); ++f) {
    std::vector<Line> lines;
    size_t bytes = 0;
    read_lines(files[f], [&](std::string_view line, int64_t number) {
      if (line.find_first_not_of(" \t\r") == line.npos) return true;
      lines.push_back({std::string(line), files[f].string() + ":" + std::to_string(number)});
      bytes += line.size();
      if (bytes >= kBatchBytes) {
        parse_lines(lines, documents, num_skipped, num_threads);
        bytes = 0;
      }
      return true;
    });
    parse_lines(lines, documents, num_skipped, num_threads);
    progress.update(static_cast<double>(f + 1), static_cast<double>(files.size()));
  }
  progress.finish(human_count(static_cast<double>(documents.size())) + " documents");
  return documents;
}

void hold_out(std::vector<Document>& documents) {
  constexpr double kSourceShare = 0.05, kMaxSourceShare = 1.0 / 3, kDocumentShare = 0.02;
  std::map<std::string, std::vector<Document*>> domains;
  std::map<std::string, bool> has_split;
  for (Document& document : documents) {
    if (document.split == "cross") continue;
    domains[document.domain].push_back(&document);
    has_split[document.domain] |= !document.split.empty();
  }
  for (auto& [domain, members] : domains) {
    if (!has_split[domain]) {
      std::map<std::string, double> sources;
      double total = 0;
      for (const Document* document : members) {
        sources[document->source] += static_cast<double>(document->text.size());
        total += static_cast<double>(document->text.size());
      }
      const auto distance = [&](const auto& source) { return std::abs(source.second / total - kSourceShare); };
      const auto nearest = std::min_element(sources.begin(), sources.end(),
                                            [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
      if (sources.size() > 1 && nearest->second <= kMaxSourceShare * total) {
        for (Document* document : members) {
          if (document->source == nearest->first) document->split = "heldout";
        }
        log_info("{}: no document says its split: the source \"{}\" is held out ({:.1f} % of the bytes)", domain,
                 nearest->first, 100 * nearest->second / total);
      } else {
        std::vector<std::pair<uint64_t, Document*>> ranked;
        for (Document* document : members)
          ranked.push_back({XXH3_64bits(document->text.data(), document->text.size()), document});
        std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        ranked.resize(std::max<size_t>(
            1, static_cast<size_t>(std::lround(kDocumentShare * static_cast<double>(members.size())))));
        for (const auto& [hash, document] : ranked) document->split = "heldout";
        log_info(
            "{}: no document says its split, and no source can be spared: {} of {} documents are held out, chosen by "
            "hash",
            domain, ranked.size(), members.size());
      }
    }
    for (Document* document : members) {
      if (document->split.empty()) document->split = "train";
    }
  }
}

}  // namespace tessera
