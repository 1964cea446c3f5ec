// Any number of components in memory gives the same bits as all of them; the plan; files cut short.
#include "engine/residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/random_model.h"

namespace tessera::engine {
namespace {

namespace fs = std::filesystem;

struct Kind {
  const char* name;
  Architecture architecture;
};

Architecture flat_architecture(int num_components) {
  Architecture a = tiny_architecture();
  a.hierarchy = {};
  a.hierarchy.domains = {{"all", num_components, false, {}}};
  a.hierarchy.unique_width = 17;
  a.domain_router.kind = "none";
  a.component_router.kind = "gate";
  return a;
}

std::vector<Kind> kinds() {
  std::vector<Kind> all = {{"hierarchy", tiny_architecture()}};
  all.push_back({"flat", flat_architecture(6)});
  Architecture trunk = tiny_architecture();
  trunk.component_router.kind = "trunk";
  all.push_back({"heads on the trunk", trunk});
  Architecture shared = tiny_architecture();  // a component is its output matrix
  shared.hierarchy.unique_width = 0;
  shared.hierarchy.always_on_width = 9;
  shared.hierarchy.num_active = 3;
  all.push_back({"shared", shared});
  return all;
}

EngineOptions with_slots(const fs::path& folder, int64_t num_slots, int threads, std::vector<uint8_t> allowed = {},
                         Paging paging = Paging::kByRoute) {
  EngineOptions options{threads, allowed};
  options.plan = plan_memory(open_model(folder), allowed, KvType::kF32, threads, 0);
  options.plan->num_slots = std::min(num_slots, options.plan->num_slots);
  options.paging = paging;
  return options;
}

// Hidden rows of a text in pieces of the given sizes (the last repeats), with its logits at the end.
std::vector<float> run(Engine& engine, const std::vector<int32_t>& tokens, std::vector<size_t> pieces) {
  Sequence sequence = engine.new_sequence(true);
  std::vector<float> out;
  for (size_t begin = 0, i = 0; begin < tokens.size(); ++i) {
    const size_t piece = std::min(pieces[std::min(i, pieces.size() - 1)], tokens.size() - begin);
    const Segment segment = {&sequence, std::span(tokens).subspan(begin, piece), Outputs::kAll};
    const std::span<const float> hidden = engine.forward({&segment, 1});
    out.insert(out.end(), hidden.begin(), hidden.end());
    begin += piece;
  }
  std::vector<float> logits(static_cast<size_t>(engine.vocab_size()));
  engine.logits({out.end() - engine.architecture().trunk.width, out.end()}, logits.data());
  out.insert(out.end(), logits.begin(), logits.end());
  return out;
}

TEST(Residency, AnyNumberOfSlotsGivesTheSameBits) {
  for (const Kind& kind : kinds()) {
    const fs::path plain = write_random_model(kind.architecture, std::string("slots-") + kind.name);
    for (const fs::path& folder : {plain, quantised(plain, {{Part::kComponent, 8}, {Part::kBank, 8}})}) {
      SCOPED_TRACE(folder.string());
      const std::vector<int32_t> tokens = random_tokens(80, 60, 1), other = random_tokens(40, 60, 2);
      Engine all(open_model(folder), {1});
      const std::vector<float> expected = run(all, tokens, {1000}), other_expected = run(all, other, {1000});
      for (const auto& [slots, paging] : {std::pair<int64_t, Paging>{1, Paging::kByRoute},
                                          {3, Paging::kByRoute},
                                          {7, Paging::kByRoute},
                                          {1000, Paging::kByRoute},
                                          {3, Paging::kPlainLru}}) {
        Engine engine(open_model(folder), with_slots(folder, slots, 1, {}, paging));
        ASSERT_EQ(run(engine, tokens, {1000}), expected) << slots << " slots, at once";
        ASSERT_EQ(run(engine, tokens, {1}), expected) << slots << " slots, token by token";
        ASSERT_EQ(run(engine, tokens, {30, 1, 1, 20}), expected) << slots << " slots, prefill and decode";
        // Two texts in a pass.
        Sequence a = engine.new_sequence(), b = engine.new_sequence();
        const Segment both[] = {{&b, other, Outputs::kLast}, {&a, tokens, Outputs::kAll}};
        const std::span<const float> hidden = engine.forward(both);
        EXPECT_TRUE(std::equal(hidden.begin() + 32, hidden.end(), expected.begin()));
        EXPECT_TRUE(std::equal(hidden.begin(), hidden.begin() + 32, other_expected.end() - 60 - 32));
      }
    }
  }
}

TEST(Residency, ReadsEachComponentOnceWhenAllFit) {
  const fs::path folder = write_random_model(tiny_architecture(), "slots-hierarchy");
  Engine engine(open_model(folder), with_slots(folder, 1000, 1));
  for (const int seed : {1, 2, 3}) run(engine, random_tokens(200, 60, static_cast<uint64_t>(seed)), {50, 1});
  const ResidencyStatistics all = engine.residency()->statistics();
  EXPECT_LE(all.reads, 22);
  EXPECT_GT(all.uses, 400);
  Engine few(open_model(folder), with_slots(folder, 4, 1));
  run(few, random_tokens(200, 60, 1), {50, 1});
  EXPECT_GT(few.residency()->statistics().reads, 100);
}

TEST(Residency, ComponentsThatFitAreReadOnce) {
  // One text of one token over and over: 2 layers x 2 components fit in 4 slots; plain LRU and the route agree.
  const fs::path folder = write_random_model(tiny_architecture(), "slots-hierarchy");
  for (const Paging paging : {Paging::kByRoute, Paging::kPlainLru}) {
    Engine engine(open_model(folder), with_slots(folder, 4, 1, {}, paging));
    for (int i = 0; i < 20; ++i) run(engine, {0}, {1});
    EXPECT_LE(engine.residency()->statistics().reads, 8) << static_cast<int>(paging);
  }
}

TEST(Residency, APassLargerThanTheSlotsKeepsSomeComponentsWherePlainLruKeepsNone) {
  Architecture a = tiny_architecture();
  const fs::path folder = write_random_model(a, "slots-hierarchy");
  const std::vector<int32_t> tokens = random_tokens(300, 60, 7);
  const auto reads = [&](Paging paging) {
    Engine engine(open_model(folder), with_slots(folder, 8, 1, {}, paging));
    run(engine, tokens, {25});
    return engine.residency()->statistics().reads;
  };
  // How far the reading thread gets ahead of a pass depends on the machine's load (115 to 150 reads, LRU 173): the best
  // of five.
  int64_t by_route = reads(Paging::kByRoute);
  for (int i = 1; i < 5; ++i) by_route = std::min(by_route, reads(Paging::kByRoute));
  EXPECT_LT(static_cast<double>(by_route), 0.75 * static_cast<double>(reads(Paging::kPlainLru)));
}

// Which components a text uses changes at once, all 30 passes, so that a rate over many passes is always behind.
TEST(Residency, EvictsLikePlainLruForAWindowAfterOneInWhichThatWouldHaveReadLess) {
  const fs::path folder = write_random_model(flat_architecture(12), "phases");
  const ModelFolder model = open_model(folder);
  const EngineOptions options = with_slots(folder, 4, 1);
  const auto reads_by_window = [&](Paging paging) {
    Residency residency(model, *options.plan, {}, paging);
    std::vector<int64_t> reads;
    int64_t before = 0;
    for (int pass = 0; pass < 4 * 2048; ++pass) {
      const int32_t id = pass / 30 % 4 * 3 + pass % 3;
      residency.begin_pass(1, {1});
      residency.expect(0, {&id, 1});
      EXPECT_EQ(residency.take(1).size(), 1u);
      residency.release();
      if ((pass + 1) % 2048 == 0) {
        reads.push_back(residency.statistics().reads - before);
        before += reads.back();
      }
    }
    return reads;
  };
  const std::vector<int64_t> lru = reads_by_window(Paging::kPlainLru), route = reads_by_window(Paging::kByRoute);
  EXPECT_GT(route[0], 2 * lru[0]);
  EXPECT_LE(route[1], lru[1] + 8);
  EXPECT_GT(route[2], 2 * lru[2]);  // it tries again
  EXPECT_LE(route[3], lru[3] + 8);
}

TEST(Residency, NothingOfADomainThatIsNotAllowedIsRead) {
  const Architecture a = tiny_architecture();
  const auto is_prose = [](const TensorSpec& spec) {
    return (spec.part == Part::kComponent && spec.index >= 8) || spec.name == "component_router.heads.prose";
  };
  const fs::path folder = write_random_model(a, "slots-hierarchy"),
                 poisoned = write_random_model(a, "slots-poisoned", [&](const TensorSpec&spec, std::vector<float>&v) {
                   if (is_prose(spec)) std::fill(v.begin(), v.end(), std::numeric_limits<float>::quiet_NaN());
                 });
  const std::vector<int32_t> tokens = random_tokens(100, 60, 5);
  Engine clean(open_model(folder), {1, {1, 1, 0}});
  EngineOptions options = with_slots(poisoned, 1000, 1, {1, 1, 0});
  options.plan->num_slots = 22;  // room for all: what is read ahead must not fill it
  Engine engine(open_model(poisoned), options);
  EXPECT_EQ(run(engine, tokens, {30, 1}), run(clean, tokens, {1000}));
  EXPECT_LE(engine.residency()->statistics().reads, 2 * 8);
  const MemoryPlan some = plan_memory(open_model(folder), {1, 1, 0}, KvType::kF32, 1, 0),
                   every = plan_memory(open_model(folder), {}, KvType::kF32, 1, 0);
  EXPECT_EQ(some.num_components, 16);
  EXPECT_EQ(every.num_components, 22);
  EXPECT_FALSE(is_resident({"component_router.heads.prose", {}, Part::kComponentRouter}, a.hierarchy, {1, 1, 0}));
  EXPECT_TRUE(is_resident({"component_router.heads.code", {}, Part::kComponentRouter}, a.hierarchy, {1, 1, 0}));
}

TEST(Residency, AFileThatIsCutShortWhileItIsInUseIsAnError) {
  const std::vector<int32_t> tokens = random_tokens(60, 60, 5);
  const auto expect_error = [&](Engine& engine) {
    try {
      run(engine, tokens, {1});
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("was cut short while it was in use"), std::string::npos) << e.what();
    }
  };
  for (const bool has_budget : {false, true}) {
    const fs::path folder = write_random_model(tiny_architecture(), "cut");
    Engine engine(open_model(folder), has_budget ? with_slots(folder, 4, 1) : EngineOptions{1});
    fs::resize_file(folder / "model.safetensors", 20000);
    expect_error(engine);
    expect_error(engine);  // it does not hang, either
  }
}

TEST(MemoryPlan, ABudgetThatCantWorkIsRefusedWithTheSmallestThatCan) {
  const ModelFolder model = open_model(write_random_model(tiny_architecture(), "slots-hierarchy"));
  try {
    plan_memory(model, {}, KvType::kF32, 1, 1 << 20);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    const size_t at = e.hint().find("--memory ");
    ASSERT_NE(at, std::string::npos) << e.hint();
    const int64_t smallest = std::stoll(e.hint().substr(at + 9)) << 20;
    const MemoryPlan plan = plan_memory(model, {}, KvType::kF32, 1, smallest);
    EXPECT_GE(plan.num_slots, 4);
    EXPECT_LE(plan.process_bytes + plan.resident_bytes + plan.cache_bytes + plan.scratch_bytes +
                  plan.num_slots * plan.slot_bytes,
              smallest);
  }
}

TEST(MemoryPlan, ComponentsThatDoNotBeginOnAPageAreRefused) {
  const fs::path folder = write_random_model(tiny_architecture(), "unaligned");
  {
    const ModelFolder model = open_model(folder);
    std::vector<TensorToWrite> tensors;
    for (const TensorSpec& spec : tensor_specs(model.architecture)) {
      const TensorInfo& tensor = model.weights->at(spec.name);
      tensors.push_back({spec.name, tensor.dtype, tensor.shape, model.weights->bytes(tensor), false});
    }
    write_safetensors(folder / "model.safetensors", tensors, {});
  }
  EXPECT_THROW(component_ranges(open_model(folder)), Error);
}

}  // namespace
}  // namespace tessera::engine
