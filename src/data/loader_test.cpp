#include "data/loader.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"
#include "data/test_folder.h"

namespace tessera {
namespace {

constexpr int32_t kBos = 0;
constexpr int32_t kStride =
    20'000;  // tokens of document n are 1 + n * kStride + position: a token tells where it is from

struct TestDocument {
  int domain;
  int64_t length;
};

class LoaderTest : public testing::Test {
 protected:
  // Documents of 3 domains, from short ones to one of many rows.
  static std::vector<TestDocument> plain_documents() {
    std::vector<TestDocument> documents;
    for (int i = 0; i < 60; ++i) documents.push_back({i % 3, 40 + i * 37 % 500});
    documents.push_back({2, 5000});
    return documents;
  }

  const ShardSet& make(const std::vector<TestDocument>& documents = plain_documents()) {
    documents_ = documents;
    ShardWriter writer(folder_.path(), {"code", "mathematics", "prose"}, {"s"}, 1 << 30, kBos, "t", 7000);
    for (size_t n = 0; n < documents.size(); ++n) {
      std::vector<int32_t> tokens(static_cast<size_t>(documents[n].length));
      for (size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<int32_t>(1 + n * kStride + t);
      writer.add(tokens, documents[n].domain, 0, 1);
    }
    writer.close();
    set_ = std::make_unique<ShardSet>(folder_.path());
    return *set_;
  }
  static size_t document_of(int32_t token) { return static_cast<size_t>((token - 1) / kStride); }
  static int64_t position_of(int32_t token) { return (token - 1) % kStride; }

  std::vector<TestDocument> documents_;
  TestFolder folder_;
  std::unique_ptr<ShardSet> set_;
};

void expect_equal(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.inputs_RT, b.inputs_RT);
  EXPECT_EQ(a.targets_RT, b.targets_RT);
  EXPECT_EQ(a.starts_RT, b.starts_RT);
  EXPECT_EQ(a.domains_RT, b.domains_RT);
  EXPECT_EQ(a.num_documents, b.num_documents);
}

TEST_F(LoaderTest, PlainRowsHaveTrueTargetsStartsAndDomains) {
  Loader loader(make(), {.context_length = 64, .splice_share = 0});
  for (int step = 0; step < 60; ++step) {
    const Batch batch = loader.next(4);
    ASSERT_EQ(batch.inputs_RT.size(), 4u * 64);
    int64_t pieces = 0;
    for (size_t i = 0; i < batch.inputs_RT.size(); ++i) {
      const int32_t input = batch.inputs_RT[i], target = batch.targets_RT[i], t = static_cast<int32_t>(i % 64);
      const bool row_ends = t == 63;
      ASSERT_TRUE(t > 0 || input == kBos);
      if (input == kBos) {
        ++pieces;
        ASSERT_EQ(batch.starts_RT[i], t);
        ASSERT_NE(target, kBos);
        ASSERT_EQ(batch.domains_RT[i], documents_[document_of(target)].domain);
      } else {
        ASSERT_EQ(batch.starts_RT[i], batch.starts_RT[i - 1]);
        const TestDocument& document = documents_[document_of(input)];
        ASSERT_EQ(batch.domains_RT[i], document.domain);
        const bool document_ends = position_of(input) == document.length - 1;
        ASSERT_EQ(target, document_ends ? kBos : input + 1);
      }
      // Within a row, what comes next is the target, or a bos (then the target may be the rest of a long document).
      ASSERT_TRUE(row_ends || batch.inputs_RT[i + 1] == kBos || batch.inputs_RT[i + 1] == target);
    }
    EXPECT_EQ(batch.num_documents, pieces);
  }
}

TEST_F(LoaderTest, EveryTokenIsServedOnceAnEpoch) {
  const ShardSet& set = make();
  Loader loader(set, {.context_length = 64, .splice_share = 0});
  std::map<int32_t, int> seen;
  std::vector<int64_t> served(3);
  // In proportion to the data, all domains end their first epoch at about the same time: count up to the epoch's end.
  while (served[0] < set.num_tokens(0) || served[1] < set.num_tokens(1) || served[2] < set.num_tokens(2)) {
    const Batch batch = loader.next(1);
    for (size_t i = 0; i < batch.inputs_RT.size(); ++i) {
      if (batch.inputs_RT[i] == kBos) continue;
      const auto domain = static_cast<size_t>(batch.domains_RT[i]);
      if (served[domain]++ < set.num_tokens(static_cast<int>(domain))) ++seen[batch.inputs_RT[i]];
    }
  }
  int64_t total = 0;
  for (const auto& document : documents_) total += document.length;
  EXPECT_EQ(static_cast<int64_t>(seen.size()), total);  // all of them, so none twice
  for (const double epochs : loader.epochs()) EXPECT_NEAR(epochs, 1.0, 0.1);
}

TEST_F(LoaderTest, OrderDiffersBetweenEpochsAndSeeds) {
  const ShardSet& set = make();
  const auto first_documents = [&](uint64_t seed, int skip_epochs) {
    Loader loader(set, {.context_length = 64, .splice_share = 0, .seed = seed});
    while (loader.epochs()[0] < skip_epochs) loader.next(1);
    const Batch batch = loader.next(40);
    std::vector<size_t> order;
    for (const int32_t token : batch.inputs_RT) {
      if (token != kBos && (order.empty() || order.back() != document_of(token))) order.push_back(document_of(token));
    }
    return order;
  };
  EXPECT_EQ(first_documents(1, 0), first_documents(1, 0));
  EXPECT_NE(first_documents(1, 0), first_documents(2, 0));
  EXPECT_NE(first_documents(1, 0), first_documents(1, 1));
}

TEST_F(LoaderTest, TheMixIsReachedWithinOnePercent) {
  const std::map<std::string, double> mix{{"code", 5}, {"mathematics", 2}, {"prose", 3}};
  Loader loader(make(), {.context_length = 64, .mix = mix, .splice_share = 0.2});
  std::vector<double> tokens(3);
  double total = 0;
  for (int step = 0; step < 200; ++step) {
    const Batch batch = loader.next(4);
    for (size_t i = 0; i < batch.inputs_RT.size(); ++i) {
      if (batch.inputs_RT[i] == kBos) continue;
      ++tokens[static_cast<size_t>(batch.domains_RT[i])];
      ++total;
    }
  }
  EXPECT_NEAR(tokens[0] / total, 0.5, 0.01);
  EXPECT_NEAR(tokens[1] / total, 0.2, 0.01);
  EXPECT_NEAR(tokens[2] / total, 0.3, 0.01);
}

TEST_F(LoaderTest, ADomainOfWeightZeroIsNeverServed) {
  Loader loader(make(), {.context_length = 64, .mix = {{"prose", 1}}, .splice_share = 0.5});
  const Batch batch = loader.next(50);
  EXPECT_EQ(std::set(batch.domains_RT.begin(), batch.domains_RT.end()), std::set<int32_t>{2});
}

TEST_F(LoaderTest, SplicesAreTwoToFourPiecesOfDifferentDocumentsWithoutBos) {
  const ShardSet& set = make();
  Loader loader(set, {.context_length = 2000, .splice_share = 1});  // splices only (but for the first piece)
  int splices = 0, mixed = 0;
  for (int step = 0; step < 100; ++step) {
    const Batch batch = loader.next(1);
    for (size_t begin = 0, end; begin < batch.inputs_RT.size(); begin = end) {
      ASSERT_EQ(batch.inputs_RT[begin], kBos);
      for (end = begin + 1; end < batch.inputs_RT.size() && batch.inputs_RT[end] != kBos;) ++end;
      const bool continued = begin == 0, cut = end == batch.inputs_RT.size();
      if (continued || cut) continue;
      std::vector<std::pair<size_t, int64_t>> pieces;  // document, length
      for (size_t i = begin + 1; i < end; ++i) {
        const int32_t token = batch.inputs_RT[i];
        ASSERT_EQ(batch.domains_RT[i], documents_[document_of(token)].domain);
        ASSERT_EQ(batch.targets_RT[i], batch.inputs_RT[i + 1]);  // to the next piece too; to bos at the end
        const bool follows = i > begin + 1 && token == batch.inputs_RT[i - 1] + 1;
        if (!follows) pieces.push_back({document_of(token), 0});
        ++pieces.back().second;
      }
      ASSERT_GE(pieces.size(), 2u);
      ASSERT_LE(pieces.size(), 4u);
      std::set<size_t> documents;
      std::set<int> domains;
      for (const auto& [document, length] : pieces) {
        ASSERT_GE(length, 32);
        ASSERT_LE(length, 400);
        documents.insert(document);
        domains.insert(documents_[document].domain);
      }
      ASSERT_EQ(documents.size(), pieces.size());
      ++splices;
      mixed += domains.size() > 1;
    }
  }
  EXPECT_GT(splices, 100);
  EXPECT_GT(mixed, splices / 2);
}

TEST_F(LoaderTest, ARepeatIsTheBeginningOfAnEarlierPieceOfTheSameSplice) {
  Loader loader(make(), {.context_length = 2000, .splice_share = 1, .repeat_share = 1});
  int splices = 0;
  for (int step = 0; step < 100; ++step) {
    const Batch batch = loader.next(1);
    for (size_t begin = 0, end; begin < batch.inputs_RT.size(); begin = end) {
      for (end = begin + 1; end < batch.inputs_RT.size() && batch.inputs_RT[end] != kBos;) ++end;
      if (begin == 0 || end == batch.inputs_RT.size()) continue;  // cut by the row
      std::map<int32_t, size_t> first_at;                         // every token of the set is another
      std::vector<size_t> repeated;                               // positions of what was there before
      for (size_t i = begin + 1; i < end; ++i) {
        if (!first_at.emplace(batch.inputs_RT[i], i).second) repeated.push_back(i);
      }
      ASSERT_FALSE(repeated.empty());
      ASSERT_LE(repeated.size(), 128u);
      ASSERT_EQ(repeated.back() - repeated.front() + 1, repeated.size());  // one piece
      const size_t source = first_at.at(batch.inputs_RT[repeated.front()]);
      for (size_t i = 0; i < repeated.size(); ++i) {
        ASSERT_EQ(batch.inputs_RT[repeated[i]], batch.inputs_RT[source + i]);
        ASSERT_EQ(batch.domains_RT[repeated[i]], batch.domains_RT[source + i]);
      }
      ++splices;
    }
  }
  EXPECT_GT(splices, 100);
}

TEST_F(LoaderTest, SpliceShareIsReached) {
  Loader loader(make(), {.context_length = 64, .splice_share = 0.25});
  for (int step = 0; step < 100; ++step) loader.next(8);
  const Json state = loader.state();
  int64_t total = 0;
  for (const Json& served : state["served_tokens"]) total += served.get<int64_t>();
  EXPECT_NEAR(state["spliced_tokens"].get<double>() / static_cast<double>(total), 0.25, 0.01);
}

TEST_F(LoaderTest, ResumesBitForBitAtAnyBatch) {
  const ShardSet& set = make();
  const LoaderOptions options{
      .context_length = 48, .mix = {{"code", 3}, {"mathematics", 1}, {"prose", 1}}, .splice_share = 0.3};
  Loader straight(set, options);
  for (int step = 0; step < 150; ++step) {
    const Json state = Json::parse(straight.state().dump());  // as a checkpoint would hold it
    EXPECT_LT(state.dump().size(), 1500u);
    Loader resumed(set, options);
    resumed.next(3);  // a loader already used takes the state as well
    resumed.set_state(state);
    Loader ahead(set, options);
    ahead.set_state(state);
    expect_equal(resumed.next(5), ahead.next(5));
    expect_equal(resumed.next(2), ahead.next(2));
    const Batch expected = straight.next(5);
    Loader again(set, options);
    again.set_state(state);
    expect_equal(again.next(5), expected);
    EXPECT_EQ(again.state(), straight.state());
  }
}

TEST_F(LoaderTest, AStateThatDoesNotFitIsAnError) {
  const ShardSet& set = make();
  Loader loader(set, {.context_length = 48});
  loader.next(3);
  const Json good = loader.state();
  const auto refused = [&](const std::function<void(Json&)>& spoil) {
    Json state = good;
    spoil(state);
    Loader other(set, {.context_length = 48});
    EXPECT_THROW(other.set_state(state), Error) << state.dump();
  };
  refused([](Json& s) { s["data_hash"] = "other"; });
  refused([](Json& s) { s["seed"] = 2; });
  refused([](Json& s) { s["context_length"] = 64; });
  refused([](Json& s) { s.erase("streams"); });
  refused([](Json& s) { s["streams"][0]["drawn"] = 1'000'000; });
  refused([](Json& s) { s["streams"][0]["drawn"] = -1; });
  refused([](Json& s) { s["streams"][0]["offset"] = 1'000'000; });
  refused([](Json& s) { s["streams"][0]["open"][0][1] = 99; });
  refused([](Json& s) { s["streams"][0]["open"][0][2] = INT64_MAX; });
  refused([](Json& s) { s["streams"][0]["open"][0][3] = -5; });
  refused([](Json& s) { s["served_tokens"] = "many"; });
}

TEST_F(LoaderTest, WrongMixesAreErrors) {
  const ShardSet& set = make({{0, 50}, {0, 60}, {2, 70}});  // no mathematics
  const auto code_of = [&](const LoaderOptions& options) {
    try {
      Loader loader(set, options);
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::kUsage;
  };
  EXPECT_EQ(code_of({.mix = {{"poetry", 1}}}), ErrorCode::kConfig);
  EXPECT_EQ(code_of({.mix = {{"code", -1}}}), ErrorCode::kConfig);
  EXPECT_EQ(code_of({.mix = {{"code", 0}}}), ErrorCode::kConfig);
  EXPECT_EQ(code_of({.mix = {{"code", 1}, {"mathematics", 1}}}), ErrorCode::kData);
  EXPECT_EQ(code_of({.context_length = 1}), ErrorCode::kConfig);
  EXPECT_EQ(code_of({.splice_share = 1.5}), ErrorCode::kConfig);
  EXPECT_EQ(code_of({}), ErrorCode::kUsage);  // none thrown
}

}  // namespace
}  // namespace tessera
