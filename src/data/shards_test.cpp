#include "data/shards.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "data/test_folder.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

// Three shards of documents whose tokens tell their number.
void write_set(const fs::path& folder, int vocab_size) {
  ShardWriter writer(folder, {"code", "prose"}, {"a", "b", "c"}, vocab_size, 0, "tokenizer", 150);
  for (int i = 0; i < 40; ++i) {
    std::vector<int32_t> tokens;
    for (int t = 0; t <= i % 13; ++t) tokens.push_back(1 + i + t);
    writer.add(tokens, i % 2, i % 3, 10 * i);
  }
  writer.close();
}

// What reading the set gives: the error's text, or "" when all goes well.
std::string failure(const fs::path& folder, bool verify_hashes) {
  try {
    const ShardSet set(folder, verify_hashes);
    std::vector<int32_t> tokens;
    for (int domain = 0; domain < 2; ++domain) {
      for (int64_t i = 0; i < set.num_documents(domain); ++i) {
        tokens.resize(static_cast<size_t>(set.document_tokens(domain, i)));
        set.read(domain, i, 0, set.document_tokens(domain, i), tokens.data());
      }
    }
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kData);
    return e.what();
  }
  return "";
}

class Shards : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { write_set(folder(), GetParam()); }
  const fs::path& folder() const { return folder_.path(); }
  fs::path shard() const { return folder() / "train-00001.bin"; }

 private:
  TestFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(TokenWidths, Shards, testing::Values(4096, 100'000));

TEST_P(Shards, GiveBackWhatWasWritten) {
  const ShardSet set(folder());
  EXPECT_EQ(set.domains(), (std::vector<std::string>{"code", "prose"}));
  EXPECT_EQ(set.sources(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(set.vocab_size(), GetParam());
  EXPECT_EQ(set.bos(), 0);
  EXPECT_EQ(set.num_documents(0), 20);
  EXPECT_TRUE(fs::exists(shard()));  // several shards
  int64_t total = 0;
  for (int i = 0; i < 40; ++i) {
    const int domain = i % 2;
    ASSERT_EQ(set.document_tokens(domain, i / 2), i % 13 + 1);
    ASSERT_EQ(set.document_source(domain, i / 2), i % 3);
    std::vector<int32_t> last(1);
    set.read(domain, i / 2, i % 13, 1, last.data());
    EXPECT_EQ(last[0], 1 + i + i % 13);
    total += i % 13 + 1;
  }
  EXPECT_EQ(set.num_tokens(0) + set.num_tokens(1), total);
}

TEST_P(Shards, HashChangesWithAnyToken) {
  const TestFolder other;
  write_set(other.path(), GetParam());
  EXPECT_EQ(ShardSet(folder()).hash(), ShardSet(other.path()).hash());
  ShardWriter writer(other.path(), {"code", "prose"}, {"a", "b", "c"}, GetParam(), 0, "tokenizer");
  writer.add({7}, 0, 0, 1);
  writer.close();
  EXPECT_NE(ShardSet(folder()).hash(), ShardSet(other.path()).hash());
}

TEST_P(Shards, CutShortAnywhereIsAnErrorThatNamesTheShard) {
  const std::string bytes = read_file(shard());
  for (size_t size = 0; size < bytes.size(); size += 64) {
    write_file_atomic(shard(), std::string_view(bytes).substr(0, size));
    EXPECT_NE(failure(folder(), false).find("train-00001.bin is broken"), std::string::npos) << size;
  }
  write_file_atomic(shard(), bytes + "x");
  EXPECT_NE(failure(folder(), false).find("train-00001.bin is broken: bytes: expected"), std::string::npos);
}

TEST_P(Shards, OneFlippedBitIsFoundByTheHash) {
  const std::string bytes = read_file(shard());
  for (size_t at = 0; at < bytes.size(); at += 37) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    write_file_atomic(shard(), flipped);
    EXPECT_NE(failure(folder(), true).find("train-00001.bin is broken"), std::string::npos) << at;
    failure(folder(), false);  // without hashes: right or an Error, never a crash (asan looks on)
  }
}

// With hashes off, the structure alone must hold against made-up counts and offsets.
TEST_P(Shards, WrongCountsAndOffsetsAreErrors) {
  const std::string bytes = read_file(shard());
  uint64_t num_tokens, num_documents;
  std::memcpy(&num_tokens, bytes.data() + 16, 8);
  std::memcpy(&num_documents, bytes.data() + 24, 8);
  const size_t width = GetParam() <= 65536 ? 2 : 4;
  const size_t offsets_at = 64 + (num_tokens * width + 7) / 8 * 8;
  const auto with = [&](size_t at, auto value) {
    std::string changed = bytes;
    std::memcpy(changed.data() + at, &value, sizeof value);
    write_file_atomic(shard(), changed);
    return failure(folder(), false);
  };
  EXPECT_NE(with(12, uint32_t{3}).find("token width"), std::string::npos);
  EXPECT_NE(with(16, ~uint64_t{0}).find("tokens: expected"), std::string::npos);
  EXPECT_NE(with(offsets_at, uint64_t{1}).find("first offset"), std::string::npos);
  EXPECT_NE(with(offsets_at + 8, ~uint64_t{0}).find("document 0 reaches"), std::string::npos);
  EXPECT_NE(with(offsets_at + 8, uint64_t{0}).find("document 0 reaches"), std::string::npos);
  EXPECT_NE(with(offsets_at + 8 * num_documents, num_tokens + 1).find("last offset"), std::string::npos);
  EXPECT_NE(with(offsets_at + 8 * (num_documents + 1), uint16_t{2}).find("no known domain"), std::string::npos);
  EXPECT_NE(with(bytes.size() - 2, uint16_t{3}).find("no known source"), std::string::npos);
  if (width == 2) {
    EXPECT_NE(with(64, uint16_t{4096}).find("token 4096"), std::string::npos);
  } else {
    EXPECT_NE(with(64, int32_t{-1}).find("token -1"), std::string::npos);
  }
  write_file_atomic(shard(), bytes);
  EXPECT_EQ(failure(folder(), true), "");
}

TEST_P(Shards, OverflowingCountsInTheIndexAreErrors) {
  const std::string bytes = read_file(shard());
  const Json index = read_json_file(folder() / "index.json");
  // Chosen so that tokens * width or (documents + 1) * 8 wraps to what the file has, header in agreement.
  for (const uint64_t huge : {uint64_t{1} << 62, uint64_t{1} << 61, uint64_t{0x7fffffffffffffff}}) {
    for (const char* key : {"tokens", "documents"}) {
      Json changed = index;
      changed["shards"][1][key] = huge;
      changed.erase("hash");
      changed["hash"] = hash_hex(changed.dump());
      write_json_file(folder() / "index.json", changed);
      std::string shard_bytes = bytes;
      std::memcpy(shard_bytes.data() + (std::string_view(key) == "tokens" ? 16 : 24), &huge, 8);
      write_file_atomic(shard(), shard_bytes);
      EXPECT_NE(failure(folder(), false).find("train-00001.bin is broken"), std::string::npos) << key << huge;
    }
  }
}

TEST_P(Shards, AnIndexThatWasEditedIsAnError) {
  const Json index = read_json_file(folder() / "index.json");
  Json changed = index;
  changed["domains"][0] = "other";
  write_json_file(folder() / "index.json", changed);
  EXPECT_NE(failure(folder(), false).find("index.json is broken: its hash"), std::string::npos);
  for (const char* key : {"version", "domains", "sources", "vocab_size", "bos", "shards", "hash"}) {
    changed = index;
    changed.erase(key);
    write_json_file(folder() / "index.json", changed);
    EXPECT_NE(failure(folder(), false).find("index.json is broken"), std::string::npos) << key;
  }
  for (const char* name : {"../train-00001.bin", "", "/etc/passwd"}) {
    changed = index;
    changed["shards"][1]["file"] = name;
    changed.erase("hash");
    changed["hash"] = hash_hex(changed.dump());
    write_json_file(folder() / "index.json", changed);
    EXPECT_NE(failure(folder(), false).find("shard name"), std::string::npos) << name;
  }
}

TEST(ShardFolder, WithoutIndexIsNoDataSet) {
  const TestFolder folder;
  EXPECT_THROW(ShardSet{folder.path()}, Error);
}

}  // namespace
}  // namespace tessera
