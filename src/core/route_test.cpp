#include "core/route.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tessera {
namespace {

using Starts = std::vector<int32_t>;
using Active = std::vector<uint8_t>;
using Pi = std::vector<float>;

TEST(ChunksTest, StartsForEachChunkLength) {
  EXPECT_EQ(chunk_starts(260, 64), (Starts{0, 16, 64, 128, 192, 256}));
  EXPECT_EQ(chunk_starts(330, 128), (Starts{0, 16, 64, 192, 320}));
  EXPECT_EQ(chunk_starts(130, 32), (Starts{0, 16, 32, 64, 96, 128}));
  EXPECT_EQ(chunk_starts(70, 16), (Starts{0, 16, 32, 48, 64}));
  EXPECT_EQ(chunk_starts(100, 20), (Starts{0, 16, 20, 40, 60, 80}));
}

TEST(ChunksTest, ShortTexts) {
  for (const int chunk_tokens : {16, 32, 64, 128}) {
    EXPECT_EQ(chunk_starts(0, chunk_tokens), Starts{});
    EXPECT_EQ(chunk_starts(1, chunk_tokens), Starts{0});
    EXPECT_EQ(chunk_starts(16, chunk_tokens), Starts{0});
    EXPECT_EQ(chunk_starts(17, chunk_tokens), (Starts{0, 16}));
  }
}

TEST(ChunksTest, ChunkOfAgreesWithTheStarts) {
  for (const int chunk_tokens : {16, 17, 32, 48, 63, 64, 65, 100, 128, 256}) {
    const Starts starts = chunk_starts(1000, chunk_tokens);
    size_t chunk = 0;
    for (int t = 0; t < 1000; ++t) {
      if (chunk + 1 < starts.size() && starts[chunk + 1] == t) ++chunk;
      ASSERT_EQ(chunk_of(t, chunk_tokens), static_cast<int>(chunk)) << t << " of chunks of " << chunk_tokens;
    }
    EXPECT_EQ(chunk + 1, starts.size());
  }
}

// A longer text has the chunks of a shorter one: the routers of a prefix see nothing of what follows.
TEST(ChunksTest, StartsDoNotDependOnTheLength) {
  for (const int chunk_tokens : {16, 32, 64, 128}) {
    const Starts all = chunk_starts(500, chunk_tokens);
    for (int n = 0; n < 500; ++n) {
      const Starts starts = chunk_starts(n, chunk_tokens);
      ASSERT_TRUE(std::equal(starts.begin(), starts.end(), all.begin()));
      ASSERT_EQ(starts.size(), static_cast<size_t>(n == 0 ? 0 : chunk_of(n - 1, chunk_tokens) + 1));
    }
  }
}

Active decide(const Pi& pi, const Active& previous = {}, const Active& allowed = {}) {
  return active_domains(pi, previous, allowed, 0.5, 0.1);
}

TEST(ActiveDomainsTest, TheSecondEntersBelowTheMargin) {
  EXPECT_EQ(decide({0.9f, 0.05f, 0.05f}), (Active{1, 0, 0}));
  EXPECT_EQ(decide({0.1f, 0.3f, 0.6f}), (Active{0, 1, 1}));
  EXPECT_EQ(decide({0.75f, 0.25f, 0.0f}), (Active{1, 0, 0}));  // exactly the margin is not below it
  EXPECT_EQ(decide({0.7421875f, 0.2578125f, 0.0f}), (Active{1, 1, 0}));
  EXPECT_EQ(decide({0.25f, 0.25f, 0.25f, 0.25f}), (Active{1, 1, 0, 0}));  // at most two, whatever pi is
}

TEST(ActiveDomainsTest, TheSecondLeavesAboveMarginAndHysteresis) {
  const Pi in_band = {0.775f, 0.225f};                 // gap 0.55
  EXPECT_EQ(decide(in_band), (Active{1, 0}));          // no decision before
  EXPECT_EQ(decide(in_band, {1, 0}), (Active{1, 0}));  // it was not active: does not enter
  EXPECT_EQ(decide(in_band, {1, 1}), (Active{1, 1}));  // it was: does not leave
  EXPECT_EQ(decide({0.82f, 0.18f}, {1, 1}), (Active{1, 0}));
  // The first two change places: the one that was active alone stays while it is near.
  EXPECT_EQ(decide({0.225f, 0.775f}, {1, 0}), (Active{1, 1}));
  EXPECT_EQ(decide({0.1f, 0.9f}, {1, 0}), (Active{0, 1}));
  // A third domain in the second place was not active, so hysteresis does not help it.
  EXPECT_EQ(decide({0.775f, 0.0f, 0.225f}, {1, 1, 0}), (Active{1, 0, 0}));
}

TEST(RestrictToAllowedTest, TheRestSumsToOne) {
  const auto restricted = [](Pi pi, const Active& allowed) {
    restrict_to_allowed(pi, allowed);
    return pi;
  };
  EXPECT_EQ(restricted({0.75f, 0.125f, 0.125f}, {}), (Pi{0.75f, 0.125f, 0.125f}));
  EXPECT_EQ(restricted({0.75f, 0.125f, 0.125f}, {0, 1, 1}), (Pi{0.0f, 0.5f, 0.5f}));
  EXPECT_EQ(restricted({1.0f, 0.0f, 0.0f}, {0, 1, 1}), (Pi{0.0f, 0.5f, 0.5f}));  // nothing is left to share out
  EXPECT_EQ(restricted({0.75f, 0.125f, 0.125f}, {0, 0, 0}), (Pi{0.0f, 0.0f, 0.0f}));
}

TEST(LogitsToPiTest, ABarredDomainIsAsIfItWerentThere) {
  DomainRouter router;
  for (const double floor : {0.0, 0.02}) {
    router.floor = floor;
    Pi without = {0.3f, -1.0f, 2.0f}, barred = {0.3f, 5.0f, -1.0f, 2.0f}, all = barred, none = barred;
    logits_to_pi(without, router);
    logits_to_pi(barred, router, Active{1, 0, 1, 1});
    EXPECT_EQ(barred, (Pi{without[0], 0.0f, without[1], without[2]}));
    logits_to_pi(all, router);
    EXPECT_GT(all[1], 0.8f);
    logits_to_pi(none, router, Active{0, 0, 0, 0});
    EXPECT_EQ(none, (Pi{0, 0, 0, 0}));
  }
}

TEST(IsUndecidedTest, UniformOverWhatIsNotBarred) {
  EXPECT_TRUE(is_undecided(Pi{0.25f, 0.25f, 0.25f, 0.25f}));
  EXPECT_TRUE(is_undecided(Pi{0.5f, 0.0f, 0.5f, 0.0f}));
  EXPECT_TRUE(is_undecided(Pi{0.0f, 0.0f}));
  EXPECT_FALSE(is_undecided(Pi{0.0f, 1.0f, 0.0f}));  // an oracle's decision, or all others barred
  EXPECT_FALSE(is_undecided(Pi{0.3f, 0.7f}));
}

TEST(ActiveDomainsTest, AnAddedDomainIsNeverTheSecond) {
  const Active added = {0, 0, 1};
  EXPECT_EQ(active_domains(Pi{0.5f, 0.1f, 0.4f}, {}, {}, 0.5, 0.1, added),
            (Active{1, 1, 0}));  // as if it weren't there
  EXPECT_EQ(active_domains(Pi{0.7f, 0.1f, 0.2f}, {}, {}, 0.5, 0.1, added), (Active{1, 0, 0}));
  EXPECT_EQ(active_domains(Pi{0.4f, 0.1f, 0.5f}, {}, {}, 0.5, 0.1, added), (Active{1, 0, 1}));    // the first it may be
  EXPECT_EQ(active_domains(Pi{0.3f, 0.25f, 0.45f}, {}, {}, 0.5, 0.1, added), (Active{1, 1, 0}));  // not so unsure
  EXPECT_EQ(active_domains(Pi{0.3f, 0.25f, 0.45f}, {}, Active{0, 0, 1}, 0.5, 0.1, added), (Active{0, 0, 1}));
}

TEST(ActiveDomainsTest, DoesNotFlapAroundTheMargin) {
  Active active;
  int changes = 0;
  for (int step = 0; step < 100; ++step) {
    const float gap = step % 2 ? 0.47f : 0.56f;
    const Active now = decide({0.5f + gap / 2, 0.5f - gap / 2}, active);
    changes += step > 0 && now != active;
    active = now;
  }
  EXPECT_EQ(changes, 1);  // it enters once
  EXPECT_EQ(active, (Active{1, 1}));
}

TEST(ActiveDomainsTest, OnlyAllowedDomains) {
  const Pi pi = {0.6f, 0.25f, 0.15f};
  EXPECT_EQ(decide(pi, {}, {0, 1, 1}), (Active{0, 1, 1}));
  EXPECT_EQ(decide(pi, {}, {0, 0, 1}), (Active{0, 0, 1}));
  EXPECT_EQ(decide(pi, {1, 1, 0}, {0, 1, 0}), (Active{0, 1, 0}));  // one that was active may not stay
  EXPECT_EQ(decide(pi, {}, {1, 1, 1}), decide(pi));
  EXPECT_EQ(decide(pi, {}, {0, 0, 0}), (Active{0, 0, 0}));
}

TEST(ActiveDomainsTest, OneDomainAndNone) {
  EXPECT_EQ(decide({1.0f}), Active{1});
  EXPECT_EQ(decide({1.0f}, {1}, {1}), Active{1});
  EXPECT_EQ(decide({}), Active{});
}

TEST(ActiveDomainsTest, TiesGoToTheFirst) {
  EXPECT_EQ(decide({0.2f, 0.4f, 0.4f}), (Active{0, 1, 1}));
  EXPECT_EQ(decide({0.4f, 0.2f, 0.2f, 0.2f}), (Active{1, 1, 0, 0}));
  EXPECT_EQ(active_domains(Pi{0.5f, 0.5f}, {}, {}, 0.0, 0.0), (Active{1, 0}));  // a margin of 0: always one
}

// Two routed domains and a general one, 2 component layers of 3, K = 2.
Architecture small_architecture() {
  Architecture a;
  a.trunk.num_layers = 3;
  a.trunk.num_dense_layers = 1;
  a.hierarchy.domains = {{"general", 3, true, {}}, {"code", 2, false, {}}, {"prose", 2, false, {}}};
  return a;
}

Route small_route() {
  Route r;
  r.num_tokens = 17;
  r.num_domains = 2;
  r.num_layers = 2;
  r.num_active = 2;
  r.chunk_starts_C = {0, 16};
  r.pi_CM = {0.5f, 0.5f, 0.9f, 0.1f};
  r.active_CM = {1, 1, 1, 0};
  for (int i = 0; i < 17 * 2; ++i) {
    r.components_TLK.insert(r.components_TLK.end(), {i % 7, (i + 3) % 7});
    r.weights_TLK.insert(r.weights_TLK.end(), {0.1f, 0.9f});
  }
  return r;
}

TEST(RouteTest, JsonComesBackBitForBit) {
  const Route r = small_route();
  const Route back = route_from_json(parse_json(to_json(r).dump(), "a route"), small_architecture());
  EXPECT_EQ(to_json(back), to_json(r));
  EXPECT_EQ(back.pi_CM, r.pi_CM);
  EXPECT_EQ(back.weights_TLK, r.weights_TLK);
  EXPECT_EQ(back.components_TLK, r.components_TLK);
}

TEST(RouteTest, OfADenseModelAndOfNoTokens) {
  Architecture dense;
  dense.trunk.num_layers = 2;
  Route route;
  route.num_tokens = 5;
  EXPECT_EQ(route_from_json(to_json(route), dense).num_tokens, 5);
  route = {};
  route.num_domains = route.num_layers = route.num_active = 2;
  EXPECT_EQ(route_from_json(to_json(route), small_architecture()).num_layers, 2);
}

TEST(RouteTest, MalformedRoutesAreRefused) {
  const std::vector<std::pair<const char*, const char*>> patches = {{"/num_tokens", "-1"},
                                                                    {"/num_tokens", "16"},
                                                                    {"/num_tokens", "18"},
                                                                    {"/num_tokens", "17.0"},
                                                                    {"/num_tokens", "17.5"},
                                                                    {"/num_tokens", "1e30"},
                                                                    {"/num_tokens", "4294967313"},
                                                                    {"/num_tokens", "18446744073709551615"},
                                                                    {"/num_tokens", "\"17\""},
                                                                    {"/num_tokens", "true"},
                                                                    {"/num_tokens", "null"},
                                                                    {"/num_domains", "3"},
                                                                    {"/num_domains", "-2"},
                                                                    {"/num_layers", "3"},
                                                                    {"/num_layers", "0"},
                                                                    {"/num_active", "1"},
                                                                    {"/num_active", "[]"},
                                                                    {"/chunk_starts", "[]"},
                                                                    {"/chunk_starts", "[0]"},
                                                                    {"/chunk_starts", "{\"0\": 0}"},
                                                                    {"/chunk_starts/0", "1"},
                                                                    {"/chunk_starts/0", "-1"},
                                                                    {"/chunk_starts/1", "0"},
                                                                    {"/chunk_starts/1", "17"},
                                                                    {"/chunk_starts/1", "4294967312"},
                                                                    {"/chunk_starts/1", "15.5"},
                                                                    {"/pi", "[0.5, 0.5]"},
                                                                    {"/pi", "\"even\""},
                                                                    {"/pi/0", "null"},
                                                                    {"/pi/0", "-0.1"},
                                                                    {"/pi/0", "1e300"},
                                                                    {"/pi/0", "true"},
                                                                    {"/active", "[1, 1, 1]"},
                                                                    {"/active/0", "2"},
                                                                    {"/active/0", "256"},
                                                                    {"/active/0", "0.5"},
                                                                    {"/components", "[]"},
                                                                    {"/components", "7"},
                                                                    {"/components/3", "7"},
                                                                    {"/components/3", "-1"},
                                                                    {"/components/3", "4294967296"},
                                                                    {"/components/3", "0.5"},
                                                                    {"/components/-", "0"},
                                                                    {"/weights", "[0.5]"},
                                                                    {"/weights/5", "-0.5"},
                                                                    {"/weights/5", "1e39"},
                                                                    {"/weights/5", "[1]"}};
  for (const auto& [pointer, value] : patches) {
    Json json = to_json(small_route());
    json[Json::json_pointer(pointer)] = Json::parse(value);
    try {
      route_from_json(json, small_architecture());
      ADD_FAILURE() << pointer << " = " << value << " was taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kData);
      EXPECT_TRUE(std::string(e.what()).starts_with("route: ")) << e.what();
    }
  }
  const Json whole = to_json(small_route());
  for (const auto& [key, unused] : whole.items()) {
    Json json = whole;
    json.erase(key);
    EXPECT_THROW(route_from_json(json, small_architecture()), Error) << key;
  }
  for (const char* text : {"null", "[]", "3", "\"route\"", "{}"})
    EXPECT_THROW(route_from_json(Json::parse(text), small_architecture()), Error) << text;
}

}  // namespace
}  // namespace tessera
