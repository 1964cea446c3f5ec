#include "core/word_piece.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace tessera {
namespace {

std::filesystem::path vocabulary(const std::string& lines) {
  const auto path = std::filesystem::path(testing::TempDir()) / "word_piece_vocab.txt";
  std::ofstream(path, std::ios::binary) << lines;
  return path;
}

// ids: [UNK] 0, [CLS] 1, [SEP] 2, un 3, ##aff 4, ##able 5, , 6, a 7, 中 8, e 9
const char* const kLines = "[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n,\na\n中\ne\n";

TEST(WordPiece, LongestPieceFirstCaseAndAccentsFolded) {
  const WordPiece pieces(vocabulary(kLines));
  EXPECT_EQ(pieces.vocab_size(), 10);
  EXPECT_EQ(pieces.encode("Unaffable, \xC3\x89 a", 32), (std::vector<int32_t>{1, 3, 4, 5, 6, 9, 7, 2}));
  EXPECT_EQ(pieces.encode("e\xCC\x81", 32), (std::vector<int32_t>{1, 9, 2}));
}

TEST(WordPiece, UnknownWordsIdeographsControlsAndBrokenBytes) {
  const WordPiece pieces(vocabulary(kLines));
  EXPECT_EQ(pieces.encode("unx a", 32), (std::vector<int32_t>{1, 0, 7, 2}));
  EXPECT_EQ(pieces.encode("a\xE4\xB8\xAD"
                          "a",
                          32),
            (std::vector<int32_t>{1, 7, 8, 7, 2}));
  EXPECT_EQ(pieces.encode("a\x01\xFF\xEF\xBF\xBD,", 32), (std::vector<int32_t>{1, 7, 6, 2}));
  EXPECT_EQ(pieces.encode(std::string(101, 'a'), 32), (std::vector<int32_t>{1, 0, 2}));
  EXPECT_EQ(pieces.encode("", 32), (std::vector<int32_t>{1, 2}));
}

TEST(WordPiece, CutsAtTheEnd) {
  const WordPiece pieces(vocabulary(kLines));
  EXPECT_EQ(pieces.encode("unaffable a", 4), (std::vector<int32_t>{1, 3, 4, 2}));
  EXPECT_EQ(pieces.encode("unaffable a", 2), (std::vector<int32_t>{1, 2}));
}

TEST(WordPiece, RefusesAVocabularyThatIsNotBerts) {
  EXPECT_THROW(WordPiece(vocabulary("[UNK]\n[CLS]\na\n")), Error);
  EXPECT_THROW(WordPiece(vocabulary("[UNK]\n[CLS]\n[SEP]\na\na\n")), Error);
}

}  // namespace
}  // namespace tessera
