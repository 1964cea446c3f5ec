#include "core/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <string>

#include "core/unicode.h"

namespace tessera {
namespace {

// The pieces of a text, joined by '|'.
std::string pieces(PreTokenizer pre_tokenizer, std::string_view text) {
  std::string result;
  for (size_t pos = 0; pos < text.size();) {
    size_t end = piece_end(pre_tokenizer, text, pos);
    result.append(result.empty() ? "" : "|").append(text.substr(pos, end - pos));
    pos = end;
  }
  return result;
}

TEST(PreTokenizerTest, Pieces) {
  const std::string text = "I'll don'T  go\t12345 x86!?\n\n  end  ";
  EXPECT_EQ(pieces(PreTokenizer::kTessera, text), "I|'ll| don|'T| | go|\t|1|2|3|4|5| x|8|6|!?\n\n| | end|  ");
  EXPECT_EQ(pieces(PreTokenizer::kGpt2, text), "I|'ll| don|'|T| | go|\t|12345| x|86|!?|\n\n | end|  ");
  EXPECT_EQ(pieces(PreTokenizer::kSmolLm2, text), "I|'ll| don|'|T| | go|\t|1|2|3|4|5| x|8|6|!?|\n\n | end|  ");
  EXPECT_EQ(pieces(PreTokenizer::kLlama3, text), "I|'ll| don|'T| | go|\t|123|45| x|86|!?\n\n| | end|  ");
  EXPECT_EQ(pieces(PreTokenizer::kQwen, text), "I|'ll| don|'T| | go|\t|1|2|3|4|5| x|8|6|!?\n\n| | end|  ");
}

TEST(PreTokenizerTest, SpacesBeforeDigits) {
  EXPECT_EQ(pieces(PreTokenizer::kGpt2, "a  7"), "a| | 7");
  EXPECT_EQ(pieces(PreTokenizer::kSmolLm2, "a  7"), "a|  |7");
  EXPECT_EQ(pieces(PreTokenizer::kLlama3, "a  7"), "a| | |7");
}

TEST(PreTokenizerTest, FoldedContractionTakesTheLongS) {
  EXPECT_EQ(pieces(PreTokenizer::kLlama3, "a'\u017Fx"), "a|'\u017F|x");
  EXPECT_EQ(pieces(PreTokenizer::kGpt2, "a'\u017Fx"), "a|'|\u017Fx");
}

TEST(UnicodeTest, ClassesOfNewCharacters) {
  EXPECT_EQ(char_at("\U000105C0", 0).char_class, CharClass::kLetter);  // Todhri, Unicode 16
  EXPECT_EQ(char_at("\U000116D0", 0).char_class, CharClass::kNumber);
  EXPECT_EQ(char_at("\u180E", 0).char_class, CharClass::kOther);  // a space until Unicode 6.3
  EXPECT_EQ(char_at("\u0085", 0).char_class, CharClass::kSpace);
  EXPECT_EQ(char_at("\u200B", 0).char_class, CharClass::kOther);
}

TEST(UnicodeTest, NfcOrdersMarksBeforeItComposes) {
  EXPECT_EQ(to_nfc("a\u0301\u0323b"), "\u1ea1\u0301b");
  EXPECT_EQ(to_nfc("\u212b"), "\u00c5");
  EXPECT_EQ(to_nfc(std::string("\0e\u0301", 4)), std::string("\0\u00e9", 3));
  EXPECT_FALSE(may_change_under_nfc("caf\u00e9"));
  EXPECT_TRUE(may_change_under_nfc("cafe\u0301"));
}

}  // namespace
}  // namespace tessera
