#include "data/build.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/rng.h"
#include "data/document.h"
#include "data/input.h"
#include "data/shards.h"
#include "data/test_folder.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

std::string prose(uint64_t seed, int num_words = 120) {
  Rng rng(seed);
  std::string text;
  for (int w = 1; w <= num_words; ++w) {
    for (uint64_t i = 3 + rng.below(6); i > 0; --i) text += static_cast<char>('a' + rng.below(26));
    text += w % 12 == 0 ? ".\n" : " ";
  }
  return text;
}

class BuildTest : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }

  fs::path write(const std::string& name, const std::vector<Document>& documents, const std::string& more = "") {
    FileWriter file(path(name));
    for (const Document& document : documents) file.write(document_line(document) + "\n");
    file.write(more);
    file.close();
    return path(name);
  }

  BuildOptions options(std::vector<fs::path> inputs) const {
    return {.inputs = std::move(inputs),
            .out = path("out"),
            .tokenizer = TESSERA_SOURCE_DIR "/data/tokenizers/tessera-4096.json"};
  }

  // Two domains with held-out sources, a cross-domain document.
  static std::vector<Document> corpus() {
    std::vector<Document> documents;
    for (uint64_t i = 0; i < 20; ++i) {
      documents.push_back({prose(i), i % 2 ? "prose" : "science", i % 2 ? "novel" : "manual", "MIT", "train"});
    }
    documents.push_back({prose(100), "prose", "other novel", "CC0", "heldout"});
    documents.push_back({prose(101), "science", "other manual", "CC0", "heldout"});
    documents.push_back({prose(102), "cross", "vignettes", "GPL", "cross"});
    return documents;
  }

  std::string error_of(const BuildOptions& build) const {
    try {
      build_data_set(build);
    } catch (const Error& e) {
      EXPECT_FALSE(e.hint().empty()) << e.what();
      EXPECT_FALSE(fs::exists(path("out")));
      EXPECT_FALSE(fs::exists(path("out.tmp")));
      return e.what();
    }
    return "no error";
  }

 private:
  TestFolder folder_;
};

TEST_F(BuildTest, WritesAWholeSetAndReusesIt) {
  const auto build = options({write("a.jsonl.zst", corpus())});
  const Json report = build_data_set(build);
  EXPECT_FALSE(report["reused"].get<bool>());
  const ShardSet set(path("out"));
  EXPECT_EQ(set.domains(), (std::vector<std::string>{"prose", "science"}));
  EXPECT_EQ(set.sources(), (std::vector<std::string>{"manual", "novel"}));
  EXPECT_EQ(set.num_documents(0), 10);
  EXPECT_EQ(set.hash(), report["data_hash"].get<std::string>());
  for (const char* name : {"tokenizer.json", "report.json", "report.md", "heldout.jsonl.zst", "cross.jsonl.zst"}) {
    EXPECT_TRUE(fs::exists(path("out") / name)) << name;
  }
  std::vector<Document> heldout;
  read_documents(path("out") / "heldout.jsonl.zst", [&](Document&& d) { heldout.push_back(std::move(d)); });
  ASSERT_EQ(heldout.size(), 2u);
  EXPECT_EQ(heldout[0].text, prose(100));
  EXPECT_EQ(heldout[0].domain, "prose");
  EXPECT_EQ(heldout[0].licence, "CC0");

  EXPECT_TRUE(build_data_set(build)["reused"].get<bool>());
  auto other = build;
  other.out = path("out/");  // the same folder
  EXPECT_TRUE(build_data_set(other)["reused"].get<bool>());
  other.domain = "else";
  EXPECT_FALSE(build_data_set(other)["reused"].get<bool>());  // another option
  EXPECT_FALSE(build_data_set(build)["reused"].get<bool>());
  auto fewer = corpus();
  fewer.pop_back();
  write("a.jsonl.zst", fewer);
  EXPECT_FALSE(build_data_set(build)["reused"].get<bool>());  // another input
  write_file_atomic(path("out") / "train-00000.bin", "broken");
  EXPECT_FALSE(build_data_set(build)["reused"].get<bool>());  // no longer whole
  EXPECT_FALSE(fs::exists(path("out.tmp")) || fs::exists(path("out.old")));
}

TEST_F(BuildTest, IsTheSameOnAnyNumberOfThreads) {
  auto build = options({write("a.jsonl", corpus())});
  build.num_threads = 1;
  build_data_set(build);
  std::map<fs::path, std::string> files;
  for (const auto& entry : fs::directory_iterator(path("out"))) files[entry.path()] = read_file(entry.path());
  fs::remove_all(path("out"));
  build.num_threads = 3;
  build_data_set(build);
  for (const auto& [name, bytes] : files) EXPECT_EQ(read_file(name), bytes) << name;
}

TEST_F(BuildTest, StatsAgreeWithTheReport) {
  const Json report = build_data_set(options({write("a.jsonl", corpus())}));
  const Json stats = data_set_stats(path("out"));
  EXPECT_EQ(stats["domains"], report["domains"]);  // bytes counted anew from the tokens
  EXPECT_EQ(stats["sources"], report["sources"]);
  EXPECT_EQ(stats["data_hash"], report["data_hash"]);
  write_file_atomic(path("out") / "cross.jsonl.zst", read_file(path("out") / "heldout.jsonl.zst"));
  EXPECT_THROW(data_set_stats(path("out")), Error);
}

TEST_F(BuildTest, BrokenLinesAreErrorsOrSkipped) {
  const std::string broken = "{\"text\": \"\xFF\"}\nno json\n";
  auto build = options({write("a.jsonl", corpus(), broken)});
  EXPECT_EQ(error_of(build), path("a.jsonl").string() + ":24 is no UTF-8: broken at byte 11 of the line");
  build.skip_bad = true;
  const Json report = build_data_set(build);
  EXPECT_EQ(report["input"]["skipped_lines"], 2);
  EXPECT_EQ(report["input"]["documents"], 23);
}

TEST_F(BuildTest, DomainsOfNoneOrOneDocumentAreErrors) {
  auto documents = corpus();
  documents.push_back({prose(200), "poetry", "p", "", "train"});
  EXPECT_TRUE(
      error_of(options({write("a.jsonl", documents)})).starts_with("the domain \"poetry\" has 1 training documents"));
  documents.back() = {"short", "poetry", "p", "", "train"};
  EXPECT_TRUE(
      error_of(options({write("a.jsonl", documents)})).starts_with("the domain \"poetry\" has 0 training documents"));
  EXPECT_EQ(error_of(options({write("a.jsonl", {})})), "the input holds no documents to train on");
  EXPECT_TRUE(error_of(options({path("absent.jsonl")})).starts_with("there is no"));
}

TEST_F(BuildTest, NeverRemovesAFolderThatIsNoDataSet) {
  const auto build = options({write("a.jsonl", corpus())});
  fs::create_directories(path("out"));
  std::ofstream(path("out") / "thesis.txt") << "years of work";
  EXPECT_THROW(build_data_set(build), Error);
  EXPECT_EQ(read_file(path("out") / "thesis.txt"), "years of work");
}

TEST_F(BuildTest, TextsOfAgainstAreKeptOutOfTraining) {
  auto build = options({write("a.jsonl", corpus())});
  build.against = {write("b.jsonl", {{.text = prose(4)}})};
  build_data_set(build);
  const ShardSet set(path("out"));
  EXPECT_EQ(set.num_documents(0) + set.num_documents(1), 19);
}

TEST_F(BuildTest, UsersOwnDocumentsNeedNothingButText) {
  std::vector<Document> documents;
  for (uint64_t i = 0; i < 100; ++i) documents.push_back({.text = prose(i)});
  auto build = options({write("a.jsonl", documents)});
  build.domain = "recipes";
  const Json report = build_data_set(build);
  const ShardSet set(path("out"));
  EXPECT_EQ(set.domains(), std::vector<std::string>{"recipes"});
  EXPECT_EQ(set.num_documents(0), 98);  // 2 % held out
}

TEST(HoldOut, OneWholeSourceWhereItCanBeSpared) {
  std::vector<Document> documents;
  for (int i = 0; i < 100; ++i) {
    const std::string source = i < 60 ? "big" : i < 93 ? "middle" : "small";
    documents.push_back({std::string(1000, 'x') + std::to_string(i), "a", source});
    documents.push_back({std::string(1000, 'y') + std::to_string(i), "b", i % 2 ? "one" : "two"});
    documents.push_back({std::string(1000, 'z') + std::to_string(i), "c", "one", "", i == 5 ? "heldout" : ""});
  }
  hold_out(documents);
  std::map<std::string, int> heldout;
  for (const Document& document : documents) {
    ASSERT_TRUE(document.split == "train" || document.split == "heldout");
    if (document.split != "heldout") continue;
    ++heldout[document.domain];
    EXPECT_TRUE(document.domain != "a" || document.source == "small");
  }
  EXPECT_EQ(heldout["a"], 7);
  EXPECT_EQ(heldout["b"], 2);  // halves: neither can be spared
  EXPECT_EQ(heldout["c"], 1);  // says itself what is held out
}

}  // namespace
}  // namespace tessera
