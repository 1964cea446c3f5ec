#include "data/document.h"

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "core/unicode.h"

namespace tessera {
namespace {

constexpr const char* kSkipHint = "mend the line; `./tessera data build --skip-bad` drops such lines and counts them";

std::string string_field(const Json& object, const char* key, const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end() || value->is_null()) return "";
  if (!value->is_string()) {
    throw Error(ErrorCode::kData, where + ": \"" + key + "\" must be a string, found " + value->type_name(), kSkipHint);
  }
  return value->get<std::string>();
}

}  // namespace

Document parse_document(std::string_view line, const std::string& where) {
  // Checked here because nlohmann reports a broken byte as a syntax error, which sends people looking for a quote.
  if (const size_t valid = valid_utf8_prefix(line); valid < line.size()) {
    throw Error(ErrorCode::kData, where + " is no UTF-8: broken at byte " + std::to_string(valid + 1) + " of the line",
                std::string("convert the file to UTF-8 (iconv), or: ") + kSkipHint);
  }
  Json object = Json::parse(line, nullptr, false);
  if (!object.is_object()) {
    throw Error(ErrorCode::kData,
                where + " is no JSON object: a line looks like {\"text\": \"...\", \"domain\": \"code\"}", kSkipHint);
  }
  if (!object.contains("text")) throw Error(ErrorCode::kData, where + " has no \"text\"", kSkipHint);
  Document document{.text = string_field(object, "text", where),
                    .domain = string_field(object, "domain", where),
                    .source = string_field(object, "source", where),
                    .licence = string_field(object, "licence", where),
                    .split = string_field(object, "split", where)};
  if (!document.split.empty() && document.split != "train" && document.split != "heldout" &&
      document.split != "cross") {
    throw Error(ErrorCode::kData,
                where + ": \"split\" must be \"train\", \"heldout\" or \"cross\", found \"" + document.split + "\"",
                kSkipHint);
  }
  return document;
}

std::string document_line(const Document& document) {
  Json object;
  object["text"] = document.text;
  if (!document.domain.empty()) object["domain"] = document.domain;
  if (!document.source.empty()) object["source"] = document.source;
  if (!document.licence.empty()) object["licence"] = document.licence;
  if (!document.split.empty()) object["split"] = document.split;
  return object.dump();
}

void read_documents(const std::filesystem::path& path, const std::function<void(Document&&)>& use) {
  read_lines(path, [&](std::string_view line, int64_t number) {
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return true;
    use(parse_document(line, path.string() + ":" + std::to_string(number)));
    return true;
  });
}

}  // namespace tessera
