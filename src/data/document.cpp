#include "data/document.h"

#include <cstring>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace tessera {
namespace {

constexpr const char* kSkipHint = "mend the line; `./tessera data build --skip-bad` drops such lines and counts them";

// The length of the valid sequence that starts with a byte >= 0x80, 0 when there is none (Unicode 15, table 3-7).
size_t sequence_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;  // 0 is no continuation
  };
  const auto within = [&](size_t i, unsigned low, unsigned high) { return byte(i) >= low && byte(i) <= high; };
  const unsigned lead = byte(0);
  if (lead >= 0xC2 && lead <= 0xDF) return within(1, 0x80, 0xBF) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
    return within(1, low, high) && within(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const unsigned low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
    return within(1, low, high) && within(2, 0x80, 0xBF) && within(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

std::string string_field(const Json& object, const char* key, const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end() || value->is_null()) return "";
  if (!value->is_string()) {
    throw Error(ErrorCode::kData, where + ": \"" + key + "\" must be a string, found " + value->type_name(), kSkipHint);
  }
  return value->get<std::string>();
}

}  // namespace

size_t utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight;
    if (at + 8 <= text.size() && (std::memcpy(&eight, text.data() + at, 8), (eight & 0x8080808080808080ull) == 0)) {
      at += 8;
    } else if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
    } else {
      const size_t length = sequence_length(text, at);
      if (length == 0) return at;
      at += length;
    }
  }
  return at;
}

Document parse_document(std::string_view line, const std::string& where) {
  // Checked here because nlohmann reports a broken byte as a syntax error, which sends people looking for a quote.
  if (const size_t valid = utf8_prefix(line); valid < line.size()) {
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
