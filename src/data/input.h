// What `data build` reads: files of documents, and which of them are held out.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/document.h"

namespace tessera {

// The .jsonl and .jsonl.zst files named, and those in the folders named, each folder's in order of name. Throws
// Error{kFile} for a path that doesn't exist or a folder without any.
std::vector<std::filesystem::path> find_document_files(const std::vector<std::filesystem::path>& inputs);

// All documents of the files, in order; parsed on `num_threads` threads. A broken line is an Error{kData} that names
// file and line; with `num_skipped` it is left out and counted instead.
std::vector<Document> read_all_documents(const std::vector<std::filesystem::path>& files, int64_t* num_skipped,
                                         int num_threads = 0);

// Marks documents as held out in each domain where no document says its split: one whole source, the one nearest to 5 %
// of the domain, so that evaluation is on a source never trained on; 2 % of the documents, chosen by hash, when the
// domain has one source or none is below a third of it. Says in the log what it chose. Every document has a split
// afterwards.
void hold_out(std::vector<Document>& documents);

}  // namespace tessera
