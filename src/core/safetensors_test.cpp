#include "core/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "core/reader_fixture.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest()
      : file_(fs::path(testing::TempDir()) / ("tessera-" + std::to_string(::getpid()) + ".safetensors")) {}
  ~SafetensorsTest() override { fs::remove(file_); }
  void write(const std::string& bytes) const { write_file_atomic(file_, bytes); }
  // "" when it loads, else the Error's message.
  std::string load_error(ErrorCode expected = ErrorCode::kData) const {
    try {
      const SafetensorsFile file(file_);
      for (const TensorInfo& tensor : file.tensors()) {
        unsigned sum = 0;  // every byte can be read
        for (const std::byte b : file.bytes(tensor)) sum += static_cast<unsigned>(b);
        EXPECT_LE(sum, 255u * file.bytes(tensor).size());
      }
      return "";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), expected) << e.what();
      return e.what();
    }
  }
  fs::path file_;
};

std::string file_of(const std::string& header, size_t data_bytes, int64_t claimed = -1) {
  const uint64_t size = claimed < 0 ? header.size() : static_cast<uint64_t>(claimed);
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + std::string(data_bytes, '\x3f');
}

// One F32 tensor "a" of [2], with these members.
std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}
std::string offsets(const std::string& pair) { return tensor(R"("F32")", "[2]", pair); }
std::string shape(const std::string& list) { return tensor(R"("F32")", list, "[0,8]"); }
std::string dtype(const std::string& value) { return tensor(value, "[2]", "[0,8]"); }
// Two F32 tensors with these offsets.
std::string two(const std::string& a, const std::string& shape_a, const std::string& b, const std::string& shape_b) {
  return R"({"a":{"dtype":"F32","shape":)" + shape_a + R"(,"data_offsets":)" + a + R"(},"b":{"dtype":"F32","shape":)" +
         shape_b + R"(,"data_offsets":)" + b + "}}";
}

struct Malformed {
  const char* name;
  std::string bytes;
};

std::vector<Malformed> malformed_files() {
  const std::string good = offsets("[0,8]");
  const std::string member = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const auto metadata = [&](const std::string& value) {
    return file_of(R"({"__metadata__":)" + value + R"(,"a":{)" + member + "}}", 8);
  };
  return {
      {"empty file", ""},
      {"one byte", "x"},
      {"seven bytes", std::string(7, '\0')},
      {"header length 0", file_of("", 0)},
      {"header length 0 before data", file_of("", 64)},
      {"header length one beyond the file", file_of(good, 0, static_cast<int64_t>(good.size()) + 1)},
      {"header length beyond the limit", file_of(good, 8, 100'000'001)},
      {"header length 2^63", std::string("\0\0\0\0\0\0\0\x80", 8) + good},
      {"header length 2^64-1", std::string(8, '\xff') + good},
      {"header length 2^64-8, which wraps", std::string("\xf8\xff\xff\xff\xff\xff\xff\xff", 8) + good},
      {"header length one short", file_of(good, 8, static_cast<int64_t>(good.size()) - 1)},
      {"header length into the data", file_of(good, 8, static_cast<int64_t>(good.size()) + 4)},
      {"header of zeros", file_of(std::string(64, '\0'), 8)},
      {"header is text", file_of("not JSON", 0)},
      {"header is a list", file_of("[]", 0)},
      {"header is a number", file_of("7", 0)},
      {"header is a string", file_of(R"("a")", 0)},
      {"header is null", file_of("null", 0)},
      {"header has no end", file_of(good.substr(0, good.size() - 1), 8)},
      {"header has two objects", file_of(good + "{}", 8)},
      {"header has a comment", file_of("/* */" + good, 8)},
      {"header ends with a comma", file_of(R"({"a":{)" + member + "},}", 8)},
      {"header is no UTF-8", file_of("{\"\xff\":{" + member + "}}", 8)},
      {"header with a lone surrogate", file_of(R"({"\ud800":{)" + member + "}}", 8)},
      {"header of 100,000 brackets", file_of(std::string(100'000, '['), 0)},
      {"header nested deep", file_of(R"({"a":)" + std::string(5000, '[') + std::string(5000, ']') + "}", 0)},
      {"tensor is null", file_of(R"({"a":null})", 0)},
      {"tensor is a list", file_of(R"({"a":[1,2]})", 0)},
      {"tensor is a number", file_of(R"({"a":1})", 0)},
      {"tensor is empty", file_of(R"({"a":{}})", 0)},
      {"no dtype", file_of(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8)},
      {"no shape", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8)},
      {"no offsets", file_of(R"({"a":{"dtype":"F32","shape":[2]}})", 8)},
      {"dtype is a number", file_of(dtype("32"), 8)},
      {"dtype is null", file_of(dtype("null"), 8)},
      {"dtype is unknown", file_of(dtype(R"("F33")"), 8)},
      {"dtype in small letters", file_of(dtype(R"("f32")"), 8)},
      {"dtype is empty", file_of(dtype(R"("")"), 8)},
      {"dtype with a zero byte", file_of(dtype(R"("F32\u0000")"), 8)},
      {"shape is a number", file_of(shape("2"), 8)},
      {"shape is null", file_of(shape("null"), 8)},
      {"shape is an object", file_of(shape(R"({"0":2})"), 8)},
      {"shape with a negative size", file_of(shape("[-2]"), 8)},
      {"shape with two negative sizes", file_of(shape("[-2,-1]"), 8)},
      {"shape with a float", file_of(shape("[2.0]"), 8)},
      {"shape with a string", file_of(shape(R"(["2"])"), 8)},
      {"shape with null", file_of(shape("[2,null]"), 8)},
      {"shape with true", file_of(shape("[2,true]"), 8)},
      {"shape in a list", file_of(shape("[[2]]"), 8)},
      {"shape with 2^64", file_of(shape("[18446744073709551616]"), 8)},
      {"shape with 2^63", file_of(shape("[9223372036854775808]"), 8)},
      {"shape times 4 is 2^64+8", file_of(shape("[4611686018427387906]"), 8)},
      {"shape whose product wraps to 2", file_of(shape("[9223372036854775807,9223372036854775807,2]"), 8)},
      {"shape of nine sizes", file_of(shape("[2,1,1,1,1,1,1,1,1]"), 8)},
      {"shape smaller than its bytes", file_of(shape("[1]"), 8)},
      {"shape larger than its bytes", file_of(shape("[3]"), 8)},
      {"shape of no elements with bytes", file_of(shape("[0]"), 8)},
      {"scalar shape with the bytes of two", file_of(shape("[]"), 8)},
      {"dtype of half the bytes", file_of(dtype(R"("F16")"), 8)},
      {"offsets are null", file_of(offsets("null"), 8)},
      {"offsets are a number", file_of(offsets("8"), 8)},
      {"offsets are empty", file_of(offsets("[]"), 8)},
      {"one offset", file_of(offsets("[0]"), 8)},
      {"three offsets", file_of(offsets("[0,8,8]"), 8)},
      {"offsets are strings", file_of(offsets(R"(["0","8"])"), 8)},
      {"offsets are floats", file_of(offsets("[0.0,8.0]"), 8)},
      {"negative begin", file_of(offsets("[-8,0]"), 8)},
      {"negative end", file_of(offsets("[0,-8]"), 8)},
      {"begin behind end", file_of(offsets("[8,0]"), 8)},
      {"end beyond the file", file_of(offsets("[0,16]"), 8)},
      {"bytes cut short", file_of(good, 7)},
      {"no bytes", file_of(good, 0)},
      {"begin beyond the file", file_of(offsets("[16,24]"), 8)},
      {"offsets near 2^64", file_of(offsets("[18446744073709551608,18446744073709551615]"), 8)},
      {"offsets of 2^64", file_of(offsets("[0,18446744073709551616]"), 8)},
      {"bytes behind the last tensor", file_of(good, 9)},
      {"bytes without tensors", file_of("{}", 1)},
      {"hole at the start", file_of(offsets("[4,12]"), 12)},
      {"hole in the middle", file_of(two("[0,8]", "[2]", "[12,20]", "[2]"), 20)},
      {"tensors overlap", file_of(two("[0,8]", "[2]", "[4,12]", "[2]"), 12)},
      {"tensors are the same bytes", file_of(two("[0,8]", "[2]", "[0,8]", "[2]"), 8)},
      {"tensor inside another", file_of(two("[0,16]", "[4]", "[4,8]", "[1]"), 16)},
      {"empty tensor inside another", file_of(two("[0,8]", "[2]", "[4,4]", "[0]"), 8)},
      {"one element of no bytes", file_of(two("[0,8]", "[2]", "[8,8]", "[1]"), 8)},
      {"name twice", file_of(R"({"a":{)" + member + R"(},"a":{)" + member + "}}", 8)},
      {"name twice, once escaped", file_of(R"({"a":{)" + member + R"(},"\u0061":{)" + member + "}}", 8)},
      {"member twice", file_of(R"({"a":{"dtype":"F64",)" + member + "}}", 8)},
      {"metadata is null", metadata("null")},
      {"metadata is a list", metadata("[]")},
      {"metadata is a string", metadata(R"("format")")},
      {"metadata holds a number", metadata(R"({"step":3})")},
      {"metadata holds an object", metadata(R"({"step":{}})")},
      {"metadata key twice", metadata(R"({"a":"1","a":"2"})")},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0)},
  };
}

TEST_F(SafetensorsTest, MalformedFilesAreRefused) {
  const std::vector<Malformed> all = malformed_files();
  EXPECT_GE(all.size(), 60u);
  for (const Malformed& malformed : all) {
    write(malformed.bytes);
    take_largest_allocation();
    EXPECT_NE(load_error().find(file_.string()), std::string::npos) << malformed.name << ": \"" << load_error() << '"';
    expect_allocation_within(malformed.bytes.size());
  }
}

TEST_F(SafetensorsTest, UnusualButValidFiles) {
  for (const std::string& bytes :
       {file_of("{}", 0), file_of("{}   ", 0), file_of(offsets("[0,8]") + "  ", 8),
        file_of(shape("[2,1,1,1,1,1,1,1]"), 8), file_of(tensor(R"("F64")", "[]", "[0,8]"), 8),
        file_of(tensor(R"("F32")", "[0,9]", "[0,0]"), 0), file_of(two("[8,16]", "[2]", "[0,8]", "[2]"), 16),
        file_of(two("[0,8]", "[2]", "[8,8]", "[3,0]"), 8)}) {
    write(bytes);
    EXPECT_EQ(load_error(), "") << bytes;
  }
}

TEST_F(SafetensorsTest, MissingFileAndFolder) {
  EXPECT_NE(load_error(ErrorCode::kFile).find(file_.string()), std::string::npos);
  fs::create_directory(file_);
  EXPECT_NE(load_error(ErrorCode::kFile).find(file_.string()), std::string::npos);
}

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST_F(SafetensorsTest, RoundTripWithPageStarts) {
  const std::string a(24, 'a'), b(5000, 'b'), c(4096, 'c'), d(6, 'd'), none;
  write_safetensors(file_,
                    {{"a", "F32", {2, 3}, as_bytes(a)},
                     {"b", "U8", {5000}, as_bytes(b), true},
                     {"c", "BF16", {2, 1024}, as_bytes(c), true},
                     {"none", "I64", {0, 4}, as_bytes(none)},
                     {"d \"quoted\" \u00e4", "F16", {3}, as_bytes(d), true}},
                    {{"format", "tessera"}, {"note", "two\nlines"}});
  const SafetensorsFile file(file_);
  ASSERT_EQ(file.tensors().size(), 5u);  // pads are not listed
  const auto expect = [&](const std::string& name, const std::string& type, const std::vector<int64_t>& size,
                          const std::string& content) {
    const TensorInfo& tensor = file.at(name);
    EXPECT_EQ(tensor.dtype, type);
    EXPECT_EQ(tensor.shape, size);
    const auto bytes = file.bytes(tensor);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), content);
  };
  expect("a", "F32", {2, 3}, a);
  expect("b", "U8", {5000}, b);
  expect("c", "BF16", {2, 1024}, c);
  expect("none", "I64", {0, 4}, "");
  expect("d \"quoted\" \u00e4", "F16", {3}, d);
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(file.at(name).begin % 4096, 0u) << name;
  EXPECT_EQ(file.at("d \"quoted\" \u00e4").begin % 4096, 0u);
  EXPECT_EQ(file.metadata().at("note"), "two\nlines");
  EXPECT_EQ(file.find("missing"), nullptr);
  EXPECT_EQ(file.find("pad.2"), nullptr);
  EXPECT_THROW(file.at("missing"), Error);
  EXPECT_THROW(write_safetensors(file_, {{"a", "U8", {24}, as_bytes(a)}, {"a", "U8", {24}, as_bytes(a)}}, {}),
               BugError);
  EXPECT_EQ(SafetensorsFile(file_).tensors().size(), 5u);  // the old file is whole
  EXPECT_FALSE(fs::exists(file_.string() + ".tmp"));
}

TEST_F(SafetensorsTest, SeededMutantsLoadOrThrow) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("pad.1":{"dtype":"U8","shape":[8],"data_offsets":[24,32]},"b":{"dtype":"I64","shape":[],"data_offsets":[32,40]}})";
  const std::string alphabet = "0123456789-.,:[]{}\"\\eFIU \xff";
  const auto read = [&](const std::string& bytes) {
    write_bytes(file_, bytes);
    const SafetensorsFile file(file_);
    for (const TensorInfo& tensor : file.tensors()) hash_hex(file.bytes(tensor));  // every byte can be read
  };
  const MutantCount whole = read_mutants(file_of(header, 40), alphabet, 20261126, 1250, file_.string(), read);
  // With a header length that fits the mutant.
  const MutantCount headers = read_mutants(header, alphabet, 20261127, 1250, file_.string(),
                                           [&](const std::string& mutant) { read(file_of(mutant, 40)); });
  EXPECT_GT(whole.read, 20);
  EXPECT_GT(whole.refused, 500);
  EXPECT_GT(headers.read, 20);
  EXPECT_GT(headers.refused, 500);
}

}  // namespace
}  // namespace tessera
