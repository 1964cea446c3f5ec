#include "base/files.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zstd.h>

#include <csignal>

#include "base/error.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

class FilesTest : public testing::Test {
 protected:
  FilesTest() {
    std::string name = (fs::temp_directory_path() / "tessera-files-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
    folder_ = name;
  }
  ~FilesTest() override { fs::remove_all(folder_); }
  size_t num_entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  // The lines of a file, each followed by "|".
  static std::string lines_of(const fs::path& path) {
    std::string all;
    int64_t expected = 0;
    read_lines(path, [&](std::string_view line, int64_t number) {
      EXPECT_EQ(number, ++expected);
      all.append(line).append("|");
      return true;
    });
    return all;
  }
  fs::path folder_;
};

// Runs `body`, which must throw an Error whose message holds `part`; gives it back.
Error error_of(const std::function<void()>& body, const std::string& part) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    return e;
  }
  ADD_FAILURE() << "no Error was thrown; expected one that names " << part;
  return Error(ErrorCode::kUsage, "");
}

// Files can't grow beyond `bytes` while it lives: writing fails as on a full disk, here with EFBIG.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

TEST_F(FilesTest, AtomicWriteReplacesTheWholeFile) {
  const fs::path file = folder_ / "a.json";
  write_file_atomic(file, "a long first content");
  write_file_atomic(file, std::string("b\0c", 3));
  EXPECT_EQ(read_file(file), std::string("b\0c", 3));
  EXPECT_EQ(num_entries(), 1u);  // no temporary is left
}

TEST_F(FilesTest, AtomicWriteKeepsTheOldFileOnAFullDisk) {
  const fs::path file = folder_ / "a.json";
  write_file_atomic(file, "old");
  fs::create_symlink("/dev/full", folder_ / "a.json.tmp");  // each write to it fails with ENOSPC
  const Error error = error_of([&] { write_file_atomic(file, "new"); }, "a.json");
  EXPECT_EQ(error.code(), ErrorCode::kFile);
  EXPECT_NE(error.hint().find("disk space"), std::string::npos) << error.hint();
  EXPECT_EQ(read_file(file), "old");
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(FilesTest, AtomicWriteKeepsTheOldFileWhenItsTemporaryIsCutShort) {
  const fs::path file = folder_ / "a.json";
  write_file_atomic(file, "old");
  {
    const FileSizeLimit limit(1000);
    error_of([&] { write_file_atomic(file, std::string(5000, 'x')); }, "a.json");
  }
  EXPECT_EQ(read_file(file), "old");
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(FilesTest, AtomicWriteToWhereNoFileCanBe) {
  error_of([&] { write_file_atomic(folder_ / "missing" / "a.json", "x"); }, "missing");
  write_file_atomic(folder_ / "file", "x");
  error_of([&] { write_file_atomic(folder_ / "file" / "a.json", "x"); }, "file");
  fs::create_directories(folder_ / "taken" / "inside");
  error_of([&] { write_file_atomic(folder_ / "taken", "x"); }, "taken");
  EXPECT_TRUE(fs::is_directory(folder_ / "taken" / "inside"));
  EXPECT_EQ(num_entries(), 2u);
}

TEST_F(FilesTest, WriterThatIsNotClosedLeavesNothing) {
  for (const char* name : {"a.txt", "a.txt.zst"}) {
    FileWriter file(folder_ / name);
    file.write(std::string(3'000'000, 'x'));  // more than the buffer, so that some of it is on disk
    EXPECT_FALSE(fs::exists(folder_ / name));
  }
  EXPECT_EQ(num_entries(), 0u);
}

TEST_F(FilesTest, WriterKeepsTheOldFileOnAFullDisk) {
  const fs::path file = folder_ / "a.bin";
  write_file_atomic(file, "old");
  fs::create_symlink("/dev/full", folder_ / "a.bin.tmp");
  error_of(
      [&] {
        FileWriter writer(file);
        writer.write("new");  // buffered: the disk is found to be full when it closes
        writer.close();
      },
      "a.bin");
  EXPECT_EQ(read_file(file), "old");
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(FilesTest, WriterThatCannotBeRenamedLeavesNothing) {
  fs::create_directories(folder_ / "taken" / "inside");
  error_of(
      [&] {
        FileWriter writer(folder_ / "taken");
        writer.write("new");
        writer.close();
      },
      "taken");
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(FilesTest, CompressedLinesComeBack) {
  const fs::path plain = folder_ / "a.jsonl", compressed = folder_ / "a.jsonl.zst";
  std::string expected;
  for (const fs::path& path : {plain, compressed}) {
    FileWriter file(path);
    expected.clear();
    for (int i = 0; i < 40000; ++i) {  // more than every buffer on the way
      const std::string line =
          "line " + std::to_string(i * 2654435761u) + std::string(static_cast<size_t>(i % 70), 'y');
      file.write(line + "\n");
      expected += line + "|";
    }
    file.close();
    EXPECT_EQ(lines_of(path), expected) << path;
  }
  EXPECT_LT(fs::file_size(compressed), fs::file_size(plain));
  EXPECT_EQ(num_entries(), 2u);
}

TEST_F(FilesTest, LinesOfAnEmptyCompressedFile) {
  FileWriter file(folder_ / "empty.zst");
  file.close();
  EXPECT_EQ(lines_of(folder_ / "empty.zst"), "");
}

// A text that fills the decompressor's output buffer exactly has ended when its frame has.
TEST_F(FilesTest, CompressedTextOfEverySizeNearTheBuffers) {
  for (const size_t size : {1u << 17, (1u << 18) - 1, 1u << 18, (1u << 18) + 1, 1u << 19}) {
    const fs::path path = folder_ / (std::to_string(size) + ".zst");
    const std::string text(size, 'z');
    FileWriter file(path);
    file.write(text);
    file.close();
    EXPECT_EQ(lines_of(path), text + "|") << size;
  }
}

TEST_F(FilesTest, SeveralZstdFramesAreOneText) {
  std::string bytes;
  for (const std::string part : {"one\ntw", "o\nthree"}) {
    std::string frame(ZSTD_compressBound(part.size()), '\0');
    frame.resize(ZSTD_compress(frame.data(), frame.size(), part.data(), part.size(), 3));
    bytes += frame;
  }
  write_file_atomic(folder_ / "a.zst", bytes);
  EXPECT_EQ(lines_of(folder_ / "a.zst"), "one|two|three|");
}

TEST_F(FilesTest, CompressedFileCutShortAnywhereIsNamed) {
  {
    FileWriter file(folder_ / "whole.zst");
    for (int i = 0; i < 500; ++i) file.write("line " + std::to_string(i * 2654435761u) + "\n");
    file.close();
  }
  const std::string whole = read_file(folder_ / "whole.zst");
  for (size_t size = 0; size < whole.size(); size += size < 20 ? 1 : 97) {
    write_file_atomic(folder_ / "cut.zst", whole.substr(0, size));
    EXPECT_EQ(error_of([&] { lines_of(folder_ / "cut.zst"); }, "cut.zst").code(), ErrorCode::kData) << size;
  }
  std::string damaged = whole;
  damaged[0] ^= 1;
  write_file_atomic(folder_ / "damaged.zst", damaged);
  EXPECT_EQ(error_of([&] { lines_of(folder_ / "damaged.zst"); }, "damaged.zst").code(), ErrorCode::kData);
}

TEST_F(FilesTest, LinesWithAndWithoutAFinalNewline) {
  const fs::path file = folder_ / "lines";
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"", ""}, {"\n", "|"}, {"a", "a|"}, {"a\n", "a|"}, {"a\n\nb", "a||b|"}, {"a\nb\n", "a|b|"}}) {
    write_file_atomic(file, text);
    EXPECT_EQ(lines_of(file), expected);
  }
  int calls = 0;
  write_file_atomic(file, "a\nb\nc\n");
  read_lines(file, [&](std::string_view, int64_t number) { return ++calls, number < 2; });
  EXPECT_EQ(calls, 2);
}

TEST_F(FilesTest, MissingFilesAndFoldersAreNamed) {
  const fs::path missing = folder_ / "missing.txt";
  EXPECT_EQ(error_of([&] { read_file(missing); }, "missing.txt").hint(), "check the path");
  error_of([&] { lines_of(missing); }, "missing.txt");
  error_of([&] { MappedFile file(missing); }, "missing.txt");
  error_of([&] { sync_path(missing); }, "missing.txt");
  error_of([&] { read_file(folder_); }, folder_.string());
  error_of([&] { lines_of(folder_); }, folder_.string());
  error_of([&] { MappedFile file(folder_); }, folder_.string());
}

TEST_F(FilesTest, MapOfAFileAndOfAnEmptyOne) {
  write_file_atomic(folder_ / "a", "bytes");
  const MappedFile file(folder_ / "a");
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()), "bytes");
  write_file_atomic(folder_ / "empty", "");
  EXPECT_EQ(MappedFile(folder_ / "empty").bytes().size(), 0u);
}

TEST_F(FilesTest, PublishRenamesTheFolderWhole) {
  fs::create_directories(folder_ / "a.writing" / "model");
  write_file_atomic(folder_ / "a.writing" / "model" / "x", "1");
  publish_folder(folder_ / "a.writing", folder_ / "a");
  EXPECT_EQ(read_file(folder_ / "a" / "model" / "x"), "1");
  EXPECT_EQ(num_entries(), 1u);

  fs::create_directories(folder_ / "b.writing");
  error_of([&] { publish_folder(folder_ / "b.writing", folder_ / "a"); }, "/a");  // it exists and holds something
  EXPECT_EQ(read_file(folder_ / "a" / "model" / "x"), "1");
}

TEST(HashTest, HashOfKnownBytes) {
  EXPECT_EQ(hash_hex(""), "2d06800538d394c2");  // XXH3 of nothing, from its specification
  EXPECT_EQ(hash_hex("tessera"), hash_hex(std::as_bytes(std::span("tessera", 7))));
  EXPECT_NE(hash_hex("tessera"), hash_hex("tesserb"));
}

}  // namespace
}  // namespace tessera
