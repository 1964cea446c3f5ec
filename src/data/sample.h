// A small evaluation set that stands for a large one.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/document.h"

namespace tessera {

// Of each source the documents in the order of a hash of their text, each cut (between two characters) to at most
// `bytes_a_document`, until the source has `bytes_a_source`; sources in order of name. Depends on the documents' texts
// alone, not on their order. Many short pieces of every source: a bootstrap over documents needs many.
std::vector<Document> sample_by_source(std::span<const Document> documents, int64_t bytes_a_source,
                                       int64_t bytes_a_document);

// At most `bytes_a_domain` of each domain (0: everything), its sources alike; what a small source lacks the others
// give. Of each source the documents in their order, the last one cut between two characters.
std::vector<Document> even_sample(std::vector<Document> documents, int64_t bytes_a_domain);

// The first `limit` bytes, or up to 3 less so that no UTF-8 character is cut.
std::string_view cut_text(std::string_view text, size_t limit);

}  // namespace tessera
