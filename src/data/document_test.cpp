#include "data/document.h"

#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "base/error.h"
#include "core/unicode.h"
#include "data/test_folder.h"

namespace tessera {
namespace {

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kData);
    return e.what();
  }
  return "no error";
}

TEST(Document, Utf8PrefixAcceptsWhatUnicodeAllows) {
  for (const std::string text : {"", "plain ascii text of some length", "é", "日本語", "\U0001F600", "a\xC2\x80",
                                 "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF", "\xEE\x80\x80"}) {
    EXPECT_EQ(valid_utf8_prefix(text), text.size()) << text;
  }
}

TEST(Document, Utf8PrefixStopsAtWhatItForbids) {
  const std::string good = "12345678é";
  for (const std::string bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC3("}) {
    EXPECT_EQ(valid_utf8_prefix(good + bad), good.size());
    EXPECT_EQ(valid_utf8_prefix(good + bad + "tail beyond"), good.size());
  }
}

TEST(Document, ReadsWhatItWrites) {
  const Document document{
      .text = "line\n\"quoted\" é", .domain = "prose", .source = "book", .licence = "MIT", .split = "heldout"};
  const Document again = parse_document(document_line(document), "here");
  EXPECT_EQ(again.text, document.text);
  EXPECT_EQ(again.domain, "prose");
  EXPECT_EQ(again.source, "book");
  EXPECT_EQ(again.licence, "MIT");
  EXPECT_EQ(again.split, "heldout");
  EXPECT_EQ(document_line({.text = "x"}), R"({"text":"x"})");
}

TEST(Document, ErrorsNameTheLine) {
  const auto message = [](const std::string& line) { return message_of([&] { parse_document(line, "f.jsonl:7"); }); };
  EXPECT_EQ(message("{\"text\": \"ab\xFF\"}"), "f.jsonl:7 is no UTF-8: broken at byte 13 of the line");
  EXPECT_TRUE(message("{\"text\": ").starts_with("f.jsonl:7 is no JSON object"));
  EXPECT_TRUE(message("[1]").starts_with("f.jsonl:7 is no JSON object"));
  EXPECT_EQ(message("{\"body\": \"x\"}"), "f.jsonl:7 has no \"text\"");
  EXPECT_EQ(message("{\"text\": 3}"), "f.jsonl:7: \"text\" must be a string, found number");
  EXPECT_TRUE(message(R"({"text": "x", "split": "test"})").starts_with("f.jsonl:7: \"split\" must be"));
  EXPECT_TRUE(message(R"({"text": "\ud800"})").starts_with("f.jsonl:7 is no JSON object"));
}

TEST(Document, FilesAreReadLineByLine) {
  const TestFolder folder;
  std::ofstream(folder.path() / "a.jsonl")
      << "{\"text\": \"one\"}\r\n\n{\"text\": \"two\", \"domain\": null}\nbroken\n";
  std::vector<std::string> texts;
  const auto read = [&] { read_documents(folder.path() / "a.jsonl", [&](Document&& d) { texts.push_back(d.text); }); };
  EXPECT_NE(message_of(read).find("a.jsonl:4 is no JSON object"), std::string::npos);
  EXPECT_EQ(texts, (std::vector<std::string>{"one", "two"}));
}

}  // namespace
}  // namespace tessera
