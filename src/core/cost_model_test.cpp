#include "core/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace tessera {
namespace {

Domain domain(const std::string& name, int num_components, bool always = false) {
  return {name, num_components, always, {}};
}

// 3 layers of width 16, 2 domains and a general one, 8 components, 2 banks.
Architecture small_model() {
  Architecture a;
  a.trunk.vocab_size = 50;
  a.trunk.width = 16;
  a.trunk.num_layers = 3;
  a.trunk.num_heads = 4;
  a.trunk.num_kv_heads = 2;
  a.trunk.head_dim = 4;
  a.trunk.context_length = 32;
  a.hierarchy.domains = {domain("general", 4, true), domain("code", 1), domain("prose", 3)};
  a.hierarchy.num_active = 2;
  a.hierarchy.num_banks = 2;
  a.hierarchy.base_width = 8;
  a.hierarchy.unique_width = 12;
  a.domain_router.kind = "encoder";
  a.domain_router.width = 8;
  a.component_router.width = 8;
  return a;
}

// The shapes of the first evidence: D=192, 4 layers, N=32, K=2.
Architecture prototype(int num_components, int num_active, int num_banks) {
  Architecture a = small_model();
  a.trunk = {4096, 192, 4, 6, 2, 32, 512};
  const int share = num_components / 8;
  a.hierarchy.domains = {domain("general", num_components / 2, true), domain("code", share),
                         domain("mathematics", share), domain("science", share), domain("prose", share)};
  a.hierarchy.num_active = num_active;
  a.hierarchy.num_banks = num_banks;
  a.domain_router.width = a.component_router.width = 96;
  return a;
}

Architecture flat_prototype(int width) {
  Architecture flat = prototype(32, 2, 8);
  flat.hierarchy.unique_width = width;
  flat.hierarchy.base_width = 0;
  return flat_twin(flat);
}

void expect_part(const ParameterCount& count, Part part, int64_t total, int64_t active) {
  EXPECT_EQ(count.of(part).total, total) << part_name(part);
  EXPECT_EQ(count.of(part).active, active) << part_name(part);
}

TEST(CostModel, CountsByHand) {
  const ParameterCount count = count_parameters(small_model());
  expect_part(count, Part::kEmbedding, 50 * 16, 0);
  expect_part(count, Part::kHead, 0, 50 * 16);  // tied: once in the total, its use as head is active
  expect_part(count, Part::kAttention, 3 * (2 * 16 * 16 + 2 * 8 * 16), 3 * (2 * 16 * 16 + 2 * 8 * 16));
  expect_part(count, Part::kNorm, 7 * 16, 7 * 16);
  expect_part(count, Part::kBank, 3 * 2 * (2 * 8 * 16), 3 * 2 * (2 * 8 * 16));
  expect_part(count, Part::kComponent, 3 * 8 * 16 * (2 * 12 + 20), 3 * 2 * 16 * (2 * 12 + 20));
  const int64_t block = 10 * 8 * 8 + 2 * 8;
  expect_part(count, Part::kDomainRouter, 8 * 16 + block + 8 + 2 * 8, 8 * 16 + block + 8 + 2 * 8);
  // Heads of general and prose are active, that of code isn't; the selection biases are in the total only.
  const int64_t planner = 8 * 16 + block + 8;
  expect_part(count, Part::kComponentRouter, planner + 3 * 8 * 8 + 3 * 8, planner + 3 * 7 * 8);
  EXPECT_EQ(count.buffers, 3 * 8);
}

TEST(CostModel, TheProjectionOfTheTokenBeforeIsMultiplied) {
  Architecture a = small_model();
  const ParameterCount without = count_parameters(a);
  a.trunk.previous_token = true;
  const ParameterCount with = count_parameters(a);
  EXPECT_EQ(with.total() - without.total(), 16 * 16);
  EXPECT_EQ(with.active() - without.active(), 16 * 16);
}

TEST(CostModel, DeepModelsCountAsTheirTensorListDoes) {
  Architecture a = small_model(), dense = a;
  a.trunk.num_layers = 9;
  a.trunk.num_dense_layers = 2;
  a.trunk.dense_width = 40;
  a.hierarchy.always_on_width = 8;
  dense.hierarchy = Hierarchy{};
  dense.trunk.num_layers = 7;
  for (const Architecture& model : {a, dense}) {
    std::array<int64_t, kNumParts> totals{};
    for (const TensorSpec& tensor : tensor_specs(model)) {
      totals[static_cast<size_t>(tensor.part)] += num_elements(tensor.shape);
    }
    for (size_t i = 0; i < totals.size(); ++i) {
      EXPECT_EQ(count_parameters(model).parts[i].total, totals[i]) << part_name(static_cast<Part>(i));
    }
  }
}

TEST(CostModel, UntiedHeadCountsTwiceInTotalAndOnceInActive) {
  Architecture a = small_model();
  const int64_t tied_total = count_parameters(a).total(), tied_active = count_parameters(a).active();
  a.trunk.tied_embeddings = false;
  EXPECT_EQ(count_parameters(a).total(), tied_total + 50 * 16);
  EXPECT_EQ(count_parameters(a).active(), tied_active);
}

TEST(CostModel, FewerBanksThanActiveComponentsAreCountedOnce) {
  Architecture a = small_model();
  a.hierarchy.num_banks = 1;
  EXPECT_EQ(count_parameters(a).of(Part::kBank).active, 3 * (2 * 8 * 16));
}

TEST(CostModel, AllHeadsAreActiveWhenAllDomainsAre) {
  Architecture a = small_model();
  a.domain_router.kind = "uniform";
  const ParameterCount::OfPart router = count_parameters(a).of(Part::kComponentRouter);
  EXPECT_EQ(router.active, router.total - 3 * 8);
}

TEST(CostModel, DenseModelHasNoRouters) {
  Architecture a = small_model();
  a.hierarchy = Hierarchy{};
  a.domain_router.kind = "none";
  a.trunk.dense_width = 40;
  const ParameterCount count = count_parameters(a);
  expect_part(count, Part::kDense, 3 * 3 * 40 * 16, 3 * 3 * 40 * 16);
  EXPECT_EQ(count.of(Part::kComponentRouter).total + count.of(Part::kDomainRouter).total, 0);
  EXPECT_EQ(count.active(), count.total());  // tied
}

TEST(CostModel, ShareOfComponentWeightsIsTheFormulaOfDesign) {
  for (const auto& [n, k, g, base, unique] : {std::array{32, 2, 8, 64, 64}, {64, 4, 8, 48, 40}, {64, 4, 16, 8, 120}}) {
    Architecture a = prototype(n, k, g);
    a.hierarchy.base_width = base;
    a.hierarchy.unique_width = unique;
    const double share = static_cast<double>(count_parameters(a).component_weights()) /
                         static_cast<double>(count_parameters(flat_twin(a)).component_weights());
    EXPECT_NEAR(share, 1 - (2.0 / 3) * (1 - static_cast<double>(g) / n) * base / (base + unique), 1e-12);
  }
}

TEST(CostModel, FlatTwinSharesNothingAndPassesTheCheck) {
  const Architecture a = small_model(), flat = flat_twin(a);
  check(flat);
  EXPECT_EQ(flat.hierarchy.num_banks, 0);
  EXPECT_EQ(flat.hierarchy.unique_width, 20);
  EXPECT_EQ(num_components(flat.hierarchy), 8);
  EXPECT_EQ(flat.component_router.kind, "gate");
  const auto components = [](const Architecture& m) {
    return count_parameters(m).of(Part::kBank).active + count_parameters(m).of(Part::kComponent).active;
  };
  EXPECT_EQ(components(flat), components(a));  // K distinct banks: the same work
  EXPECT_EQ(flat.trunk.width, a.trunk.width);
}

TEST(SolveWidths, ReachesBothPresetsWithFinerComponentsToo) {
  const Architecture flat = flat_prototype(256);
  // Without banks it is an always-on component that is shared.
  for (const auto& [n, k, g, active] :
       {std::tuple{32, 2, 8, 1.0}, {64, 4, 8, 1.0}, {128, 2, 8, 0.75}, {32, 2, 0, 1.0}}) {
    const SolvedWidths solved = solve_widths(prototype(n, k, g), flat, 0.75, active);
    EXPECT_LE(solved.total_share, 0.75);
    EXPECT_GT(solved.total_share, 0.74);  // reached, not undercut
    EXPECT_NEAR(solved.active_share, active, 0.01 * active);
    check(solved.architecture);
    const double flat_total = static_cast<double>(count_parameters(flat).total());
    EXPECT_DOUBLE_EQ(static_cast<double>(count_parameters(solved.architecture).total()) / flat_total,
                     solved.total_share);
  }
}

TEST(SolveWidths, SaysWhyNoWidthsDo) {
  const Architecture flat = flat_prototype(256);
  EXPECT_THROW(solve_widths(prototype(32, 2, 32), flat, 0.75, 1.0), Error);  // a bank each shares nothing
  EXPECT_THROW(solve_widths(prototype(32, 2, 8), flat, 0.1, 1.0), Error);    // less than sharing can save
  EXPECT_THROW(solve_widths(prototype(32, 2, 0), flat, 0.01, 1.0), Error);   // nor an always-on component
  Architecture heavy = prototype(32, 2, 8);
  heavy.component_router.width = 4096;  // the router alone is larger than the flat MoE
  EXPECT_THROW(solve_widths(heavy, flat, 0.75, 1.0), Error);
}

TEST(CostModel, BytesFollowTheStatedFormula) {
  Architecture a = small_model();
  TrainConfig train;
  train.micro_batch_tokens = 64;
  const double total = static_cast<double>(count_parameters(a).total());
  const TrainBytes bytes = train_bytes(a, train);
  EXPECT_EQ(bytes.weights, 4 * total);
  EXPECT_EQ(bytes.gradients, 4 * (total - 24));
  EXPECT_EQ(bytes.moments, 8 * (total - 24));
  EXPECT_EQ(bytes.logits, 64.0 * 50 * 12);
  train.precision = "bf16";
  EXPECT_EQ(train_bytes(a, train).weights, 6 * total);
  EXPECT_EQ(train_bytes(a, train).activations, bytes.activations / 2);
  train.micro_batch_tokens = 128;
  EXPECT_EQ(train_bytes(a, train).activations, bytes.activations);
  EXPECT_EQ(run_bytes(a).weights, 2 * total);
  EXPECT_EQ(run_bytes(a).kv_cache, 2.0 * 32 * (2 * 3 * 2 * 4 + 2 * 8));
  const double attention = 3 * 4.0 * 16 * 16 + 4.0 * 8 * 16 + 4.0 * 8 * 16;  // trunk, planner, encoder at 16 positions
  EXPECT_EQ(forward_flops(a).total(), 2.0 * static_cast<double>(count_parameters(a).active()) + attention);
}

TEST(CostModel, PatchesMakeLevelOneCheaper) {
  Architecture a = small_model();
  const Flops whole = forward_flops(a);
  const TrainConfig train;
  const double activations = train_bytes(a, train).activations;
  a.domain_router.patch_tokens = 4;
  const Flops patched = forward_flops(a);
  const double level1 = static_cast<double>(count_parameters(a).of(Part::kDomainRouter).active);
  EXPECT_DOUBLE_EQ(whole.weights - patched.weights, 2 * 0.75 * level1);    // once for four tokens
  EXPECT_EQ(whole.attention - patched.attention, 4.0 * 8 * 16 * 15 / 16);  // a quarter of the positions sees a quarter
  a.domain_router.patch_tokens = 2;
  const double halved = train_bytes(a, train).activations;
  a.domain_router.kind = "uniform";
  EXPECT_DOUBLE_EQ(activations - halved, halved - train_bytes(a, train).activations);
}

TEST(CostModel, MoreDevicesAreFasterAndHoldMore) {
  const Config config = load_config(TESSERA_SOURCE_DIR "/configs/seed/mhc-900b.json");
  const std::vector<Hardware> machines = known_hardware();
  const HardwareEstimate one = estimate_on(machines[2], config.model, config.train);
  const HardwareEstimate cluster = estimate_on(machines.back(), config.model, config.train);
  EXPECT_FALSE(one.train_fits);
  EXPECT_EQ(one.run_devices, 0);
  EXPECT_LT(cluster.train_s, one.train_s);
  EXPECT_TRUE(cluster.train_fits);
  EXPECT_EQ(cluster.run_devices, 23);  // 1.8 TB in 80 GB each
  const HardwareEstimate small = estimate_on(machines[2], small_model(), TrainConfig{});
  EXPECT_EQ(small.run_devices, 1);
  EXPECT_TRUE(small.train_fits);
}

// The published sizes, within their rounding, from real dimensions.
TEST(SeedConfigs, ComeOutAtThePublishedSizes) {
  const Config standard = load_config(TESSERA_SOURCE_DIR "/configs/seed/standard-1.2t.json");
  const ParameterCount flat = count_parameters(standard.model);
  EXPECT_EQ(num_components(standard.model.hierarchy), 32);
  EXPECT_EQ(standard.model.hierarchy.num_banks, 0);
  EXPECT_GE(flat.total(), 1'150'000'000'000);
  EXPECT_LE(flat.total(), 1'250'000'000'000);
  EXPECT_GE(flat.active(), 37'450'000'000);
  EXPECT_LE(flat.active(), 37'550'000'000);

  const Config mhc = load_config(TESSERA_SOURCE_DIR "/configs/seed/mhc-900b.json");
  const ParameterCount count = count_parameters(mhc.model);
  EXPECT_GE(count.total(), 895'000'000'000);
  EXPECT_LE(count.total(), 905'000'000'000);
  EXPECT_GE(count.active(), 28'050'000'000);
  EXPECT_LE(count.active(), 28'150'000'000);
  EXPECT_GT(mhc.model.hierarchy.num_banks, 0);
  EXPECT_EQ(routed_domains(mhc.model.hierarchy).size(), 4u);
  EXPECT_GT(count.of(Part::kDomainRouter).total, 0);
  EXPECT_EQ(mhc.model.component_router.kind, "planner");
}

}  // namespace
}  // namespace tessera
