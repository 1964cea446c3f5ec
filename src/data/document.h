// A document as JSONL line: {"text", "domain", "source", "licence", "split"}; only "text" is required.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace tessera {

// The domain of documents that mix several: where a model has none of this name, its level 1 learns nothing from them.
inline constexpr std::string_view kMixedDomain = "mixed";

struct Document {
  std::string text;         // UTF-8
  std::string domain = {};  // "" when the line names none
  std::string source = {};  // the unit held out as a whole; "" when the line names none
  std::string licence = {};
  std::string split = {};  // "train", "heldout", "cross"; "" counts as "train"
};

// One line. Throws Error{kData} that begins with `where` ("file:line") when it is no JSON object, has no "text", or is
// no UTF-8.
Document parse_document(std::string_view line, const std::string& where);

// The line without its end; keys without a value are left out.
std::string document_line(const Document& document);

// Calls `use` for each document of a .jsonl or .jsonl.zst file; blank lines are ignored. Throws what parse_document
// throws, naming file and line.
void read_documents(const std::filesystem::path& path, const std::function<void(Document&&)>& use);

}  // namespace tessera
