#include "core/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/error.h"
#include "core/tokenizer_fixture.h"

namespace tessera {
namespace {

using Tokens = std::vector<int32_t>;

TEST(TokenizerTest, EncodesByMerges) {
  Tokenizer tokenizer = make(small_tokenizer());
  EXPECT_EQ(tokenizer.encode("hello hello"), (Tokens{259, 260}));
  EXPECT_EQ(tokenizer.encode("hellhe"), (Tokens{258, 256}));
  EXPECT_EQ(tokenizer.encode(""), Tokens{});
  EXPECT_EQ(tokenizer.encode("ababab"), (Tokens{262, 261}));
  EXPECT_EQ(tokenizer.vocab_size(), 265);
  EXPECT_EQ(tokenizer.bos(), 263);
  EXPECT_EQ(tokenizer.token_bytes(260), " hello");
  EXPECT_EQ(tokenizer.token_bytes(0xFF), "\xFF");
}

TEST(TokenizerTest, MergesMayBeStrings) {
  Json json = small_tokenizer();
  for (Json& merge : json["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  EXPECT_EQ(make(json).encode("hello hello"), (Tokens{259, 260}));
}

TEST(TokenizerTest, IgnoreMergesTakesWholePieces) {
  Json json = small_tokenizer();
  json["model"]["merges"].erase(3);  // hell + o
  json["model"]["merges"].erase(3);  // Ġ + hello
  EXPECT_EQ(make(json).encode("hello"), (Tokens{258, 'o'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(make(json).encode("hello"), (Tokens{259}));
}

TEST(TokenizerTest, SpecialTokensOnlyWhenAskedFor) {
  Tokenizer tokenizer = make(small_tokenizer());
  EXPECT_EQ(tokenizer.encode("<|bos|>hello", true), (Tokens{263, 259}));
  EXPECT_EQ(tokenizer.encode("<|bos|>").size(), 7u);
  EXPECT_EQ(tokenizer.encode("a<tool>b"), (Tokens{'a', 264, 'b'}));  // not special: always
  Tokens tokens{263, 259, 264};
  EXPECT_EQ(tokenizer.decode(tokens), "hello<tool>");
  EXPECT_EQ(tokenizer.decode(tokens, true), "<|bos|>hello<tool>");
}

TEST(TokenizerTest, LongestAddedTokenWins) {
  Json json = small_tokenizer();
  json["added_tokens"].push_back(added_token(265, "<tool>s", false));
  json["added_tokens"].push_back(added_token(266, "ol>", false));
  EXPECT_EQ(make(json).encode("<tool>s<tool>"), (Tokens{265, 264}));
  EXPECT_EQ(make(json).encode("ool>"), (Tokens{'o', 266}));
}

TEST(TokenizerTest, StartOfDocument) {
  Json json = small_tokenizer();
  json["added_tokens"][0]["content"] = "<|endoftext|>";
  EXPECT_EQ(make(json).bos(), 263);
  json["added_tokens"].push_back(added_token(265, "<|begin_of_text|>", true));
  EXPECT_EQ(make(json).bos(), 265);
  json["added_tokens"] = Json::array();
  EXPECT_EQ(make(json).bos(), -1);
}

TEST(TokenizerTest, SentencePieceWorksOnCharactersAndFallsBackToBytes) {
  const Tokenizer tokenizer = make(llama2_tokenizer());
  EXPECT_EQ(tokenizer.pre_tokenizer(), "llama2");
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.encode("ab ab"), (Tokens{265, 265}));
  EXPECT_EQ(tokenizer.encode("aé"), (Tokens{263, 262}));
  EXPECT_EQ(tokenizer.encode("è\n"), (Tokens{259, 3 + 0xC3, 3 + 0xA8, 3 + '\n'}));  // no token has them
  EXPECT_EQ(tokenizer.encode("\xFF"), (Tokens{259, 3 + 0xFF}));                     // no UTF-8
  EXPECT_EQ(tokenizer.encode("  a"), (Tokens{266, 263}));  // three spaces with the one in front
  EXPECT_EQ(tokenizer.encode("▁a"), tokenizer.encode(" a"));
  EXPECT_EQ(tokenizer.encode(""), Tokens{});
  EXPECT_EQ(tokenizer.encode("<s>a</s>ab", true), (Tokens{1, 263, 2, 265}));
  for (const std::string text : {"ab ab", " a", "  b", "è\n", "\xFF", "日本 a"})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.token_bytes(265), " ab");
  EXPECT_EQ(tokenizer.token_bytes(3 + '\n'), "\n");
  std::string long_word;
  Tokens expected{265};
  for (int i = 0; i < 100; ++i) {
    long_word += "ab";
    if (i > 0) expected.push_back(264);
  }
  EXPECT_EQ(tokenizer.encode(long_word), expected);
}

TEST(TokenizerTest, SentencePieceNeverFindsALiteralSpace) {
  Json json = llama2_tokenizer();
  json["model"]["vocab"][" "] = 267;
  EXPECT_EQ(make(json).encode("b"), (Tokens{259, 261}));
}

TEST(TokenizerTest, SentencePieceWritesSpacesInAddedTokensToo) {
  Json json = llama2_tokenizer();
  json["added_tokens"].push_back({{"id", 267}, {"content", "▁x▁"}});
  const Tokenizer tokenizer = make(json);
  EXPECT_EQ(tokenizer.encode("b▁x▁"), (Tokens{259, 261, 267}));
  EXPECT_EQ(tokenizer.decode(Tokens{261, 267}), "b x ");
}

TEST(TokenizerTest, WhereSentencePieceHasASpaceInFront) {
  Json json = llama2_tokenizer();
  const auto expect = [&](const Tokens& plain, const Tokens& after_space, const Tokens& after_special) {
    EXPECT_EQ(make(json).encode("a"), plain);
    EXPECT_EQ(make(json).encode(" a"), after_space);
    EXPECT_EQ(make(json).encode("<s>a", true), after_special);
  };
  expect({263}, {266, 260}, {1, 263});
  json["normalizer"]["normalizers"].erase(0);
  expect({260}, {263}, {1, 260});
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = metaspace("always");
  expect({263}, {263}, {1, 263});
  json["pre_tokenizer"] = metaspace("first");
  expect({263}, {263}, {1, 260});
  json["pre_tokenizer"] = metaspace("never");
  expect({260}, {263}, {1, 260});
  EXPECT_EQ(make(json).decode(Tokens{263}), " a");
}

TEST(TokenizerTest, TokensOutOfRange) {
  Tokenizer tokenizer = make(small_tokenizer());
  for (int32_t token : {-1, 265, INT32_MAX, INT32_MIN}) {
    EXPECT_THROW(tokenizer.token_bytes(token), Error);
    EXPECT_THROW(tokenizer.decode(std::vector{token}), Error);
  }
}

TEST(TokenizerTest, IdsMayHaveGaps) {
  Json json = small_tokenizer();
  json["added_tokens"][1]["id"] = 300;
  Tokenizer tokenizer = make(json);
  EXPECT_EQ(tokenizer.vocab_size(), 301);
  EXPECT_EQ(tokenizer.decode(Tokens{'x', 280, 'y'}), "xy");
}

class VariantTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, VariantTest, testing::Values("tessera", "gpt2", "smollm2", "llama3", "qwen", "llama2"),
                         [](const auto& info) { return info.param; });

TEST_P(VariantTest, IsRecognised) { EXPECT_EQ(make(variant(GetParam())).pre_tokenizer(), GetParam()); }

TEST_P(VariantTest, RandomBytesRoundTrip) {
  Tokenizer tokenizer = make(variant(GetParam()));
  std::mt19937 rng(7);
  const std::vector<std::string> parts{"hello",
                                       " ",
                                       "  ",
                                       "\n",
                                       "\r\n",
                                       "'s",
                                       "'LL",
                                       "7",
                                       "12345",
                                       "\xC3",
                                       "\xE2",
                                       "\xF0",
                                       "\xFF",
                                       "\xED\xA0\x80",
                                       "\u00e9",
                                       "中",
                                       "😀",
                                       "\u0301",
                                       "\u2028",
                                       "\xC0\x80",
                                       "<tool>",
                                       "<|bos|>",
                                       "\xF4\x90\x80\x80",
                                       "abababab",
                                       "!?"};
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    int length = rng() % 40;
    while (static_cast<int>(text.size()) < length) {
      if (rng() % 2) text += parts[rng() % parts.size()];
      if (rng() % 2) text += static_cast<char>(rng());
    }
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, true), true), text);
  }
}

TEST(TokenizerTest, BrokenUtf8IsEncodedByteByByte) {
  Tokenizer tokenizer = make(small_tokenizer());
  EXPECT_EQ(tokenizer.encode("hello\xFFhello\xE4\xB8"), (Tokens{259, 0xFF, 259, 0xE4, 0xB8}));
  EXPECT_EQ(tokenizer.encode("\xED\xA0\x80"), (Tokens{0xED, 0xA0, 0x80}));  // a surrogate
}

TEST(TokenizerTest, NfcNormalisesTextAndAddedTokens) {
  Json json = variant("qwen");
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"].push_back(added_token(265, "caf\u00e9", false, true));
  Tokenizer tokenizer = make(json);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("e\u0301 \u1112\u1161\u11ab")), "\u00e9 \ud55c");
  EXPECT_EQ(tokenizer.encode("cafe\u0301"), (Tokens{265}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("e\u0301\xFF"
                                              "e\u0301")),
            "\u00e9\xFF\u00e9");
}

TEST(TokenizerTest, SmolLm2MayLackBytesAndDropsThem) {
  Json json = variant("smollm2");
  json["model"]["vocab"].erase(byte_character(0x04));
  EXPECT_EQ(make(json).encode("he\x04\x04ll"), (Tokens{256, 257}));
}

TEST(TokenizerTest, LongPiecesTakeTheSameMergesAsShortOnes) {
  Tokenizer tokenizer = make(small_tokenizer());
  for (size_t count : {20, 31, 32, 33, 500}) {  // 64 bytes is where the algorithm changes
    std::string text;
    for (size_t i = 0; i < count; ++i) text += "ab";
    Tokens expected(count / 2, 262);
    if (count % 2) expected.push_back(261);
    EXPECT_EQ(tokenizer.encode(text), expected);
  }
}

TEST(TokenizerTest, WorstCasesAreNotQuadratic) {  // each would take hours
  Json json = variant("qwen");
  json["normalizer"] = {{"type", "NFC"}};
  Tokenizer tokenizer = make(json);
  std::string letters(1 << 20, 'a'), spaces(1 << 20, ' '), marks;
  for (int i = 0; i < 100000; ++i) marks += "\u0301\u0323";
  EXPECT_EQ(tokenizer.encode(letters).size(), letters.size());
  EXPECT_EQ(tokenizer.encode(spaces).size(), spaces.size());
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(marks)).size(), marks.size());
}

TEST(TokenizerTest, ThreadsAndTokenizersDontMixTheirCaches) {
  Tokenizer first = make(small_tokenizer());
  Json json = small_tokenizer();
  json["model"]["merges"] = Json::array();
  Tokenizer second = make(json);
  auto run = [&] {
    for (int i = 0; i < 200; ++i) {
      EXPECT_EQ(first.encode("hello hello"), (Tokens{259, 260}));
      EXPECT_EQ(second.encode("hello").size(), 5u);
    }
  };
  std::thread other(run);
  run();
  other.join();
}

TEST(TokenizerTest, ReadsFiles) {
  auto path = std::filesystem::temp_directory_path() / ("tessera-tokenizer-" + std::to_string(::getpid()));
  std::string text = small_tokenizer().dump(1);
  std::ofstream(path) << text;
  EXPECT_EQ(Tokenizer::from_file(path).json(), text);
  std::filesystem::remove(path);
  EXPECT_THROW(Tokenizer::from_file(path), Error);
}

}  // namespace
}  // namespace tessera
