#include "core/word_piece.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "base/temporary_folder.h"

namespace tessera {
namespace {

WordPiece word_piece(const std::string& lines) {
  // of this process alone: tests run side by side
  const auto name = "tessera-pieces-" + std::to_string(::getpid());
  const TemporaryFolder folder(std::filesystem::path(testing::TempDir()) / name);
  std::ofstream(folder.path / "vocab.txt", std::ios::binary) << lines;
  return WordPiece(folder.path / "vocab.txt");
}

// ids: [UNK] 0, [CLS] 1, [SEP] 2, un 3, ##aff 4, ##able 5, , 6, a 7, 中 8, e 9
const char* const kLines = "[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n,\na\n中\ne\n";

TEST(WordPiece, LongestPieceFirstCaseAndAccentsFolded) {
  const WordPiece pieces = word_piece(kLines);
  EXPECT_EQ(pieces.vocab_size(), 10);
  EXPECT_EQ(pieces.encode("Unaffable, \xC3\x89 a", 32), (std::vector<int32_t>{1, 3, 4, 5, 6, 9, 7, 2}));
  EXPECT_EQ(pieces.encode("e\xCC\x81", 32), (std::vector<int32_t>{1, 9, 2}));
}

TEST(WordPiece, UnknownWordsIdeographsControlsAndBrokenBytes) {
  const WordPiece pieces = word_piece(kLines);
  EXPECT_EQ(pieces.encode("unx a", 32), (std::vector<int32_t>{1, 0, 7, 2}));
  EXPECT_EQ(pieces.encode("a\xE4\xB8\xAD"
                          "a",
                          32),
            (std::vector<int32_t>{1, 7, 8, 7, 2}));
  EXPECT_EQ(pieces.encode("a\x01\xFF\xEF\xBF\xBD,", 32), (std::vector<int32_t>{1, 7, 6, 2}));
  EXPECT_EQ(pieces.encode(std::string(101, 'a'), 32), (std::vector<int32_t>{1, 0, 2}));
  EXPECT_EQ(pieces.encode("", 32), (std::vector<int32_t>{1, 2}));
}

TEST(WordPiece, CutsAtEitherEnd) {
  const WordPiece pieces = word_piece(kLines);
  EXPECT_EQ(pieces.encode("unaffable a", 4), (std::vector<int32_t>{1, 3, 4, 2}));
  EXPECT_EQ(pieces.encode("unaffable a", 2), (std::vector<int32_t>{1, 2}));
  const auto end = [&](int max_tokens) { return pieces.encode("unaffable a", max_tokens, WordPiece::Keep::kEnd); };
  EXPECT_EQ(end(4), (std::vector<int32_t>{1, 5, 7, 2}));
  EXPECT_EQ(end(6), (std::vector<int32_t>{1, 3, 4, 5, 7, 2}));
  EXPECT_EQ(end(2), (std::vector<int32_t>{1, 2}));
}

TEST(WordPiece, RefusesAVocabularyThatIsNotBerts) {
  EXPECT_THROW(word_piece("[UNK]\n[CLS]\na\n"), Error);
  EXPECT_THROW(word_piece("[UNK]\n[CLS]\n[SEP]\na\na\n"), Error);
}

}  // namespace
}  // namespace tessera
