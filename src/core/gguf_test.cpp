#include "core/gguf.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

#include "base/error.h"
#include "core/gguf_fixture.h"
#include "core/reader_fixture.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;
using gguf::File;
using gguf::key;
using gguf::raw;
using gguf::tensor;
using gguf::text;
using gguf::u32;
using gguf::u64;

// Two keys and two tensors: "a" F32 [2, 4] at 0, "b" Q8_0 [1, 32] at 32.
File good() {
  File file;
  file.keys = {key("general.architecture", std::string("llama")), key("n", 7u)};
  file.tensors = {tensor("a", {4, 2}, 0, 0), tensor("b", {32, 1}, 8, 32)};
  file.data = std::string(32 + 34, '\1');
  return file;
}

std::string with(const std::function<void(File&)>& change) {
  File file = good();
  change(file);
  return file.bytes();
}
std::string with_key(const std::string& bytes) {
  return with([&](File& f) { f.keys[1] = bytes; });
}
std::string with_tensor(const std::string& bytes) {
  return with([&](File& f) { f.tensors[1] = bytes; });
}
std::string cut(size_t size) { return good().bytes().substr(0, size); }
// The same of a file with one key and no tensors.
std::string cut_key(size_t size) { return File{.keys = {good().keys[0]}}.bytes().substr(0, size); }
std::string array(uint32_t type, uint64_t count, const std::string& elements) {
  return key("k", gguf::kArray, u32(type) + u64(count) + elements);
}

struct Malformed {
  const char* name;
  std::string bytes;
  const char* part;  // of the message
};

std::vector<Malformed> malformed_files() {
  const uint64_t huge = UINT64_MAX;
  return {
      {"empty", "", "header"},
      {"one byte", "G", "header"},
      {"magic only", "GGUF", "header"},
      {"another magic", with([](File& f) { f.magic = "GGML"; }), "begin with"},
      {"magic in small letters", with([](File& f) { f.magic = "gguf"; }), "begin with"},
      {"magic reversed", with([](File& f) { f.magic = "FUGG"; }), "begin with"},
      {"a text", "This is no model, it's a text of more than 24 bytes.", "begin with"},
      {"a zip", std::string("PK\3\4") + std::string(60, '\0'), "begin with"},
      {"version 0", with([](File& f) { f.version = 0; }), "version"},
      {"version 1", with([](File& f) { f.version = 1; }), "version"},
      {"version 4", with([](File& f) { f.version = 4; }), "version"},
      {"version 2^32-1", with([](File& f) { f.version = UINT32_MAX; }), "version"},
      {"version 3 of a big-endian machine", with([](File& f) { f.version = 0x03000000; }), "big-endian"},
      {"version 2 of a big-endian machine", with([](File& f) { f.version = 0x02000000; }), "big-endian"},
      {"cut in the version", cut(6), "header"},
      {"cut in the number of tensors", cut(12), "header"},
      {"cut in the number of keys", cut(20), "header"},
      {"cut behind the counts", cut(24), "keys"},
      {"cut in a key's length", cut_key(28), "keys"},
      {"cut in a key", cut_key(40), "metadata key 1"},
      {"cut in a key's type", cut_key(54), "general.architecture"},
      {"cut in a string's length", cut_key(60), "general.architecture"},
      {"cut in a string", cut_key(66), "general.architecture"},
      {"2^63 keys", with([](File& f) { f.claimed_keys = INT64_MAX; }), "metadata keys"},
      {"2^64-1 keys", cut(16) + u64(huge) + std::string(99, 'x'), "metadata keys"},
      {"a million keys", with([](File& f) { f.claimed_keys = 1'000'000; }), "metadata keys"},
      {"one key more than there are", with([](File& f) { f.claimed_keys = 3; }), "tensor 1"},
      {"one key less than there are", with([](File& f) { f.claimed_keys = 1; }), "'n'"},
      {"2^63 tensors", with([](File& f) { f.claimed_tensors = INT64_MAX; }), "tensors"},
      {"2^64-1 tensors", cut(8) + u64(huge) + u64(0) + std::string(99, 'x'), "tensors"},
      {"a million tensors", with([](File& f) { f.claimed_tensors = 1'000'000; }), "tensors"},
      {"one tensor more than there are", with([](File& f) { f.claimed_tensors = 3; }), "tensor 3"},
      {"key of no bytes", with_key(key("", 7u)), "metadata key 2"},
      {"key longer than the file", with_key(u64(10'000) + "k"), "metadata key 2"},
      {"key of 2^64-1 bytes", with_key(u64(huge) + "k"), "metadata key 2"},
      {"key of 2^64-8 bytes, which wraps", with_key(u64(huge - 7) + "k"), "metadata key 2"},
      {"key of 70,000 bytes", with_key(key(std::string(70'000, 'k'), 7u)), "metadata key 2"},
      {"key is no UTF-8", with_key(key("k\xFF", 7u)), "UTF-8"},
      {"key with a zero byte", with_key(key(std::string("k\0k", 3), 7u)), "UTF-8"},
      {"key twice", with_key(key("general.architecture", std::string("llama"))), "twice"},
      {"type 13", with_key(key("k", 13, u32(0))), "'k'"},
      {"type 2^32-1", with_key(key("k", UINT32_MAX, u32(0))), "'k'"},
      {"bool of 2", with_key(key("k", gguf::kBool, "\2")), "'k'"},
      {"array of bools with a 255", with_key(array(gguf::kBool, 3, "\1\xFF\1")), "'k'"},
      {"string longer than the file", with_key(key("k", gguf::kString, u64(1'000'000) + "x")), "'k'"},
      {"string of 2^64-1 bytes", with_key(key("k", gguf::kString, u64(huge) + "x")), "'k'"},
      {"number at the end of the file", File{.keys = {key("k", gguf::kU64, "1234")}}.bytes(), "'k'"},
      {"array of arrays", with_key(array(gguf::kArray, 1, u32(gguf::kU8) + u64(1) + "x")), "arrays of arrays"},
      {"array of type 13", with_key(array(13, 1, "x")), "'k'"},
      {"array of 2^64-1 u8", with_key(array(gguf::kU8, huge, "x")), "'k'"},
      {"array of 2^63 u16, whose bytes wrap to 0", with_key(array(gguf::kU16, uint64_t{1} << 63, "x")), "'k'"},
      {"array of 2^61 f64, whose bytes wrap to 0", with_key(array(gguf::kF64, uint64_t{1} << 61, "x")), "'k'"},
      {"array of u32 longer than the file", with_key(array(gguf::kU32, 1'000, u32(1))), "'k'"},
      {"array of 2^64-1 strings", with_key(array(gguf::kString, huge, text("x"))), "'k'"},
      {"array of strings longer than the file", with_key(array(gguf::kString, 9'000, text("x"))), "'k'"},
      {"array with a string that is too long", with_key(array(gguf::kString, 2, text("x") + u64(1 << 20))), "'k'"},
      {"array cut in its count", File{.keys = {key("k", gguf::kArray, u32(gguf::kU8) + "123")}}.bytes(), "'k'"},
      {"alignment 0", with_key(key("general.alignment", 0u)), "general.alignment"},
      {"alignment 24", with_key(key("general.alignment", 24u)), "general.alignment"},
      {"alignment 2^31", with_key(key("general.alignment", 0x80000000u)), "general.alignment"},
      {"alignment is a text", with_key(key("general.alignment", std::string("32"))), "general.alignment"},
      {"alignment is an array", with_key(key("general.alignment", std::vector<int32_t>{32})), "general.alignment"},
      {"alignment is negative", with_key(key("general.alignment", gguf::kI32, raw(-32))), "general.alignment"},
      {"alignment is a float", with_key(key("general.alignment", 32.0f)), "general.alignment"},
      {"alignment that the offsets don't have", with_key(key("general.alignment", 64u)), "'b'"},
      {"tensor name of no bytes", with_tensor(tensor("", {32}, 8, 32)), "tensor 2"},
      {"tensor name longer than the file", with_tensor(u64(10'000) + "b"), "tensor 2"},
      {"tensor name of 2^64-1 bytes", with_tensor(u64(huge) + "b"), "tensor 2"},
      {"tensor name is no UTF-8", with_tensor(tensor("\xC3", {32}, 8, 32)), "UTF-8"},
      {"tensor twice", with_tensor(tensor("a", {32}, 8, 32)), "twice"},
      {"no dimensions", with_tensor(tensor("b", {}, 8, 32)), "'b'"},
      {"five dimensions", with_tensor(tensor("b", {32, 1, 1, 1, 1}, 8, 32)), "'b'"},
      {"2^32-1 dimensions", with_tensor(text("b") + u32(UINT32_MAX) + u64(1)), "'b'"},
      {"size 0", with_tensor(tensor("b", {32, 0}, 8, 32)), "'b'"},
      {"size 2^63", with_tensor(tensor("b", {uint64_t{1} << 63}, 8, 32)), "'b'"},
      {"size 2^64-1", with_tensor(tensor("b", {huge}, 8, 32)), "'b'"},
      {"sizes whose product wraps to 0", with_tensor(tensor("b", {1ull << 32, 1ull << 32}, 0, 32)), "'b'"},
      {"sizes whose product wraps to 32", with_tensor(tensor("b", {32, (1ull << 63) + 1}, 8, 32)), "'b'"},
      {"bytes that wrap", with_tensor(tensor("b", {1ull << 62, 1}, 0, 32)), "'b'"},
      {"type 99", with_tensor(tensor("b", {32}, 99, 32)), "number 99"},
      {"type 2^32-1", with_tensor(tensor("b", {32}, UINT32_MAX, 32)), "'b'"},
      {"type 4, long gone", with_tensor(tensor("b", {32}, 4, 32)), "'b'"},
      {"type Q2_K, which isn't read", with_tensor(tensor("b", {256}, 10, 32)), "Q2_K"},
      {"type I32, which isn't read", with_tensor(tensor("b", {32}, 26, 32)), "I32"},
      {"row of half a block", with_tensor(tensor("b", {16, 2}, 8, 32)), "blocks"},
      {"row of a block and a half", with_tensor(tensor("b", {384}, 12, 32)), "blocks"},
      {"offset off the alignment", with_tensor(tensor("b", {32}, 8, 31)), "'b'"},
      {"offset beyond the file", with_tensor(tensor("b", {32}, 8, 1 << 20)), "'b'"},
      {"offset near 2^64", with_tensor(tensor("b", {32}, 8, huge - 31)), "'b'"},
      {"end one byte beyond the file", with([](File& f) { f.data.pop_back(); }), "'b'"},
      {"no data", with([](File& f) { f.data.clear(); }), "'a'"},
      {"data cut behind the first tensor", with([](File& f) { f.data.resize(32); }), "'b'"},
      {"tensors are the same bytes", with_tensor(tensor("b", {8}, 0, 0)), "overlap"},
      {"tensor begins inside another", with([](File& f) {
         f.tensors = {tensor("a", {16}, 0, 0), tensor("b", {4}, 0, 32)};
       }),
       "overlap"},
      {"tensor around another", with([](File& f) {
         f.tensors = {tensor("a", {4}, 0, 32), tensor("b", {16}, 0, 0)};
       }),
       "overlap"},
      {"cut in a tensor's sizes", good().bytes().substr(0, good().bytes().find(text("b")) + 20), "'b'"},
      {"cut in a tensor's offset", good().bytes().substr(0, good().bytes().find(text("b")) + 36), "'b'"},
  };
}

class GgufTest : public testing::Test {
 protected:
  GgufTest() : path_(fs::path(testing::TempDir()) / ("tessera-" + std::to_string(::getpid()) + ".gguf")) {}
  ~GgufTest() override { fs::remove(path_); }
  GgufFile open(const std::string& bytes) const {
    write_bytes(path_, bytes);
    return GgufFile(path_);
  }
  fs::path path_;
};

// Looks at everything that the file offers.
void read_all(const GgufFile& file) {
  for (const GgufTensor& t : file.tensors()) {
    const std::span<const std::byte> bytes = file.bytes(t);
    std::vector<float> values(static_cast<size_t>(t.format->block_size));
    const size_t blocks = bytes.size() / static_cast<size_t>(t.format->block_bytes);
    for (size_t i = 0; i < blocks; ++i)
      dequantize(*t.format, bytes.data() + i * static_cast<size_t>(t.format->block_bytes), t.format->block_size,
                 values.data());
  }
  for (const std::string& name : file.keys()) {
    const auto ignore_errors = [&](auto&& read) {
      try {
        read();
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("key '"), std::string::npos) << e.what();
      }
    };
    ignore_errors([&] { file.text(name); });
    ignore_errors([&] { file.integer(name); });
    ignore_errors([&] { file.number(name); });
    ignore_errors([&] { file.boolean(name); });
    ignore_errors([&] { file.texts(name); });
    ignore_errors([&] { file.integers(name); });
  }
}

TEST_F(GgufTest, MalformedFilesAreNamed) {
  const std::vector<Malformed> all = malformed_files();
  EXPECT_GE(all.size(), 60u);
  for (const Malformed& malformed : all) {
    SCOPED_TRACE(malformed.name);
    take_largest_allocation();
    try {
      open(malformed.bytes);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& e) {
      const std::string message = e.what();
      EXPECT_EQ(e.code(), ErrorCode::kData);
      EXPECT_EQ(message.rfind(path_.string(), 0), 0u) << message;
      EXPECT_NE(message.find(malformed.part), std::string::npos) << message;
      EXPECT_LT(message.size(), 700u);
      EXPECT_FALSE(e.hint().empty());
    }
    expect_allocation_within(malformed.bytes.size());
  }
}

TEST_F(GgufTest, MissingFileAndFolder) {
  EXPECT_THROW(GgufFile(path_.string() + ".missing"), Error);
  EXPECT_THROW(GgufFile(fs::path(testing::TempDir())), Error);
}

TEST_F(GgufTest, ReadsTensorsAndMetadata) {
  File file = good();
  file.version = 2;
  file.keys.push_back(key("signed", gguf::kI8, raw(int8_t{-5})));
  file.keys.push_back(key("large", gguf::kU64, u64(UINT64_MAX)));
  file.keys.push_back(key("double", gguf::kF64, raw(0.1)));
  file.keys.push_back(key("float", 0.5f));
  file.keys.push_back(key("yes", gguf::kBool, "\1"));
  file.keys.push_back(key("texts", std::vector<std::string>{"one", "", "three"}));
  file.keys.push_back(key("numbers", std::vector<int32_t>{3, -4}));
  file.keys.push_back(key("none", std::vector<std::string>{}));
  const GgufFile read = open(file.bytes());
  ASSERT_EQ(read.tensors().size(), 2u);
  EXPECT_EQ(read.tensors()[0].name, "a");
  EXPECT_EQ(read.tensors()[0].shape, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(read.tensors()[0].format->name, "F32");
  EXPECT_EQ(read.bytes(read.tensors()[0]).size(), 32u);
  EXPECT_EQ(read.tensors()[1].shape, (std::vector<int64_t>{1, 32}));
  EXPECT_EQ(read.bytes(read.tensors()[1]).size(), 34u);
  EXPECT_EQ(read.tensors()[1].begin - read.tensors()[0].begin, 32u);
  EXPECT_EQ(read.bytes(read.tensors()[1])[0], std::byte{1});
  EXPECT_EQ(read.text("general.architecture"), "llama");
  EXPECT_EQ(read.integer("n"), 7);
  EXPECT_EQ(read.number("n"), 7.0);
  EXPECT_EQ(read.integer("signed"), -5);
  EXPECT_EQ(read.number("double"), 0.1);
  EXPECT_EQ(read.number("float"), 0.5);
  EXPECT_EQ(read.boolean("yes"), true);
  EXPECT_EQ(read.texts("texts"), (std::vector<std::string_view>{"one", "", "three"}));
  EXPECT_EQ(read.integers("numbers"), (std::vector<int64_t>{3, -4}));
  EXPECT_EQ(read.texts("none")->size(), 0u);
  EXPECT_EQ(read.integers("none")->size(), 0u);
  EXPECT_EQ(read.text("absent"), std::nullopt);
  EXPECT_EQ(read.keys().size(), 10u);
  for (const char* wrong : {"n", "texts"}) EXPECT_THROW(read.text(wrong), Error) << wrong;
  for (const char* wrong : {"float", "general.architecture", "large", "numbers", "yes"})
    EXPECT_THROW(read.integer(wrong), Error) << wrong;
  EXPECT_THROW(read.boolean("n"), Error);
  EXPECT_THROW(read.integers("texts"), Error);
}

TEST_F(GgufTest, UnusualButValidFiles) {
  EXPECT_EQ(open(File{}.bytes()).tensors().size(), 0u);
  open(with([](File& f) { f.data += "and bytes behind the last tensor"; }));
  open(with([](File& f) { std::swap(f.tensors[0], f.tensors[1]); }));  // not in the order of their offsets
  File wide = good();
  wide.keys[1] = key("general.alignment", 64u);
  wide.tensors[1] = tensor("b", {32}, 8, 64);  // a gap between the tensors
  wide.data.resize(64 + 34);
  const GgufFile read = open(wide.bytes(64));
  EXPECT_EQ(read.tensors()[0].begin % 64, 0u);
}

// Every shorter file is refused: nothing is read behind the end.
TEST_F(GgufTest, EveryTruncationIsRefused) {
  const std::string bytes = good().bytes();
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_THROW(open(bytes.substr(0, size)), Error) << size;
  EXPECT_NO_THROW(read_all(open(bytes)));
}

TEST_F(GgufTest, SeededMutantsAreReadOrRefused) {
  File file = good();
  file.keys.push_back(key("general.alignment", 32u));
  file.keys.push_back(key("texts", std::vector<std::string>{"one", "two"}));
  file.keys.push_back(key("numbers", std::vector<int32_t>{1, 2, 3}));
  file.tensors.push_back(tensor("c", {256}, 14, 96));
  file.data.resize(96 + 210, '\2');
  const MutantCount count = read_mutants(file.bytes(), std::string("\0\1\2\3\x8\xff", 6), 20261124, 2500,
                                         path_.string(), [&](const std::string& bytes) { read_all(open(bytes)); });
  EXPECT_GT(count.read, 200);
  EXPECT_GT(count.refused, 500);
}

}  // namespace
}  // namespace tessera
