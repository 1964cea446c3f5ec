#include "data/sample.h"

#include <algorithm>
#include <map>

#include "base/files.h"

namespace tessera {

std::string_view cut_text(std::string_view text, size_t limit) {
  if (limit >= text.size()) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return text.substr(0, limit);
}

std::vector<Document> sample_by_source(std::span<const Document> documents, int64_t bytes_a_source,
                                       int64_t bytes_a_document) {
  std::map<std::string, std::vector<std::pair<std::string, const Document*>>> sources;
  for (const Document& d : documents) sources[d.source].emplace_back(hash_hex(d.text), &d);
  std::vector<Document> sample;
  for (auto& [name, entries] : sources) {
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    int64_t left = bytes_a_source;
    for (const auto& [hash, document] : entries) {
      const size_t most = static_cast<size_t>(std::min(left, bytes_a_document));
      if (most == 0) break;
      Document piece = *document;
      piece.text = std::string(cut_text(document->text, most));
      left -= static_cast<int64_t>(document->text.size() > most ? most : piece.text.size());
      if (!piece.text.empty()) sample.push_back(std::move(piece));
    }
  }
  return sample;
}

std::vector<Document> even_sample(std::vector<Document> documents, int64_t bytes_a_domain) {
  if (bytes_a_domain == 0) return documents;
  std::map<std::string, std::map<std::string, int64_t>> domains;  // domain -> source -> bytes
  for (const Document& d : documents) domains[d.domain][d.source] += static_cast<int64_t>(d.text.size());
  for (auto& [domain, sources] : domains) {  // bytes -> room
    std::vector<int64_t*> by_size;
    for (auto& [source, bytes] : sources) by_size.push_back(&bytes);
    std::stable_sort(by_size.begin(), by_size.end(), [](const int64_t* a, const int64_t* b) { return *a < *b; });
    int64_t left = bytes_a_domain;
    for (size_t i = 0; i < by_size.size(); ++i) {
      *by_size[i] = std::min(*by_size[i], left / static_cast<int64_t>(by_size.size() - i));
      left -= *by_size[i];
    }
  }
  std::vector<Document> sample;
  for (Document& document : documents) {
    int64_t& room = domains[document.domain][document.source];
    const size_t whole = document.text.size();
    document.text.resize(cut_text(document.text, static_cast<size_t>(room)).size());
    room = document.text.size() < whole ? 0 : room - static_cast<int64_t>(whole);
    if (!document.text.empty()) sample.push_back(std::move(document));
  }
  return sample;
}

}  // namespace tessera
