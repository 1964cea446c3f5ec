#include "core/tensor_names.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/config.h"

namespace tessera {
namespace {

Architecture dense() {
  Architecture a;
  a.trunk = {.vocab_size = 40, .width = 12, .num_layers = 2, .num_heads = 3, .num_kv_heads = 1, .dense_width = 20};
  return a;
}

Architecture flat() {  // Mixtral's shape: one domain, no banks, a linear gate a layer
  Architecture a = dense();
  a.trunk.dense_width = 0;
  a.trunk.tied_embeddings = false;
  a.hierarchy.domains = {{"all", 5, false, {}}};
  a.hierarchy.unique_width = 16;
  a.component_router.kind = "gate";
  return a;
}

Architecture mhc() {
  Architecture a = dense();
  a.trunk.num_layers = 3;
  a.trunk.num_dense_layers = 1;
  a.hierarchy.domains = {{"general", 4, true, {}}, {"code", 2, false, {}}, {"prose", 1, false, {}}};
  a.hierarchy.num_banks = 3;
  a.hierarchy.base_width = 6;
  a.hierarchy.unique_width = 10;
  a.hierarchy.always_on_width = 8;
  a.domain_router = {.kind = "encoder", .width = 16, .num_layers = 2, .num_heads = 2};
  a.component_router = {.kind = "planner", .width = 24, .num_layers = 1, .num_heads = 2};
  return a;
}

std::map<std::string, Architecture> all_architectures() {
  Architecture banks_only = mhc(), unrouted = mhc();
  banks_only.hierarchy.unique_width = 0;
  unrouted.domain_router.kind = "uniform";
  unrouted.component_router.kind = "gate";
  std::map<std::string, Architecture> all = {
      {"dense", dense()}, {"flat", flat()}, {"mhc", mhc()}, {"banks only", banks_only}, {"unrouted", unrouted}};
  all["demo"] = load_config(std::filesystem::path(TESSERA_SOURCE_DIR) / "configs" / "demo.json").model;
  all["demo"].trunk.vocab_size = 64;  // 0 there: taken from the data
  return all;
}

int64_t count_elements(const Architecture& a) {
  int64_t n = 0;
  for (const TensorSpec& tensor : tensor_specs(a)) n += num_elements(tensor.shape);
  return n;
}

size_t count(const Architecture& a, Part part) {
  size_t n = 0;
  for (const TensorSpec& tensor : tensor_specs(a)) n += tensor.part == part;
  return n;
}

TEST(TensorNamesTest, NamesAreUniqueAndNoPads) {
  for (const auto& [what, a] : all_architectures()) {
    check(a);
    std::set<std::string> names, parameters;
    for (const TensorSpec& tensor : tensor_specs(a)) {
      EXPECT_TRUE(names.insert(tensor.name).second) << what << ": " << tensor.name;
      EXPECT_FALSE(tensor.name.starts_with("pad."));
      for (const int64_t size : tensor.shape) EXPECT_GE(size, 1) << what << ": " << tensor.name;
    }
    for (const ParameterSpec& parameter : parameter_specs(a))
      EXPECT_TRUE(parameters.insert(parameter.name).second) << what << ": " << parameter.name;
  }
}

// Every element of each stacked parameter belongs to exactly one tensor.
TEST(TensorNamesTest, SlicesCoverTheParametersExactly) {
  for (const auto& [what, a] : all_architectures()) {
    std::map<std::string, ParameterSpec> parameters;
    std::map<std::string, std::vector<int>> owners;  // by element: how many tensors hold it
    for (const ParameterSpec& parameter : parameter_specs(a)) {
      parameters[parameter.name] = parameter;
      owners[parameter.name].assign(static_cast<size_t>(num_elements(parameter.shape)), 0);
    }
    for (const TensorSpec& tensor : tensor_specs(a)) {
      ASSERT_TRUE(parameters.contains(tensor.parameter)) << what << ": " << tensor.name;
      const ParameterSpec& parameter = parameters[tensor.parameter];
      std::vector<int>& owned = owners[tensor.parameter];
      EXPECT_EQ(parameter.part, tensor.part);
      EXPECT_EQ(parameter.buffer, tensor.buffer);
      int64_t first = 0;
      if (tensor.slice < 0) {
        EXPECT_EQ(tensor.shape, parameter.shape) << what << ": " << tensor.name;
      } else {
        ASSERT_EQ(parameter.shape.size(), tensor.shape.size() + 1) << what << ": " << tensor.name;
        ASSERT_LT(tensor.slice, parameter.shape[0]);
        ASSERT_LE(tensor.row + tensor.shape[0], parameter.shape[1]);
        ASSERT_EQ(tensor.shape[1], parameter.shape[2]) << "slices are whole rows";
        first = (tensor.slice * parameter.shape[1] + tensor.row) * parameter.shape[2];
      }
      for (int64_t i = first; i < first + num_elements(tensor.shape); ++i) ++owned[static_cast<size_t>(i)];
    }
    for (const auto& [name, owned] : owners) {
      EXPECT_EQ(std::count(owned.begin(), owned.end(), 1), static_cast<std::ptrdiff_t>(owned.size()))
          << what << ": " << name;
    }
  }
}

// A component and a base bank are one read: contiguous in the list, and only the first tensor starts a page.
TEST(TensorNamesTest, ComponentsAndBanksAreContiguousAndStartOnAPage) {
  for (const auto& [what, a] : all_architectures()) {
    std::set<std::string> seen;
    std::string open;
    for (const TensorSpec& tensor : tensor_specs(a)) {
      const bool is_slice = tensor.part == Part::kBank || tensor.part == Part::kComponent;
      const std::string group = is_slice ? tensor.name.substr(0, tensor.name.rfind('.')) : "";
      EXPECT_EQ(tensor.page_start, is_slice && group != open) << what << ": " << tensor.name;
      EXPECT_EQ(tensor.index >= 0, is_slice) << tensor.name;
      if (is_slice && group != open) EXPECT_TRUE(seen.insert(group).second) << what << ": " << group << " is split";
      open = group;
    }
    const size_t groups = static_cast<size_t>(num_component_layers(a)) *
                          static_cast<size_t>(num_components(a.hierarchy) + a.hierarchy.num_banks);
    EXPECT_EQ(seen.size(), groups) << what;
  }
}

// Counted by hand from DESIGN section 2: V=40, D=12, 3 heads of 4, 1 key/value head.
TEST(TensorNamesTest, DenseModel) {
  const Architecture a = dense();
  const int64_t attention = 12 * 12 + 2 * 4 * 12 + 12 * 12, feed_forward = 3 * 20 * 12;
  EXPECT_EQ(count_elements(a), 40 * 12 + 2 * (attention + feed_forward + 2 * 12) + 12);
  EXPECT_EQ(tensor_specs(a).size(), 1u + 2 * 8 + 1);
  for (const Part part : {Part::kBank, Part::kComponent, Part::kDomainRouter, Part::kComponentRouter, Part::kHead})
    EXPECT_EQ(count(a, part), 0u);
  EXPECT_EQ(parameter_specs(a).size(), tensor_specs(a).size());
}

TEST(TensorNamesTest, FlatModel) {
  const Architecture a = flat();
  const int64_t attention = 12 * 12 + 2 * 4 * 12 + 12 * 12, components = 5 * 3 * 16 * 12, gate = 5 * 12 + 5;
  EXPECT_EQ(count_elements(a), 2 * 40 * 12 + 2 * (attention + components + gate + 2 * 12) + 12);
  EXPECT_EQ(count(a, Part::kComponent), 2u * 5 * 3);
  EXPECT_EQ(count(a, Part::kBank), 0u);
  EXPECT_EQ(count(a, Part::kDomainRouter), 0u);
  EXPECT_EQ(count(a, Part::kComponentRouter), 2u * 2);  // the gate and the selection bias
  EXPECT_EQ(count(a, Part::kHead), 1u);
}

TEST(TensorNamesTest, HierarchicalModel) {
  const Architecture a = mhc();
  const int64_t attention = 12 * 12 + 2 * 4 * 12 + 12 * 12;
  const int64_t banks = 3 * 2 * 6 * 12, components = 7 * (2 * 10 * 12 + 16 * 12), always_on = 3 * 8 * 12;
  const auto block = [](int64_t w) { return 4 * w * w + 6 * w * w + 2 * w; };
  const int64_t domain_router = 16 * 12 + 2 * block(16) + 16 + 2 * 16;
  const int64_t component_router = 24 * 12 + block(24) + 24 + 2 * 7 * 24;  // heads: 2 layers of 7 components
  EXPECT_EQ(count_elements(a), 40 * 12 + 12 + 3 * (attention + 2 * 12) + 3 * 20 * 12 +
                                   2 * (banks + components + always_on + 7) + domain_router + component_router);
  EXPECT_EQ(count(a, Part::kBank), 2u * 3 * 2);
  EXPECT_EQ(count(a, Part::kComponent), 2u * 7 * 3);
  EXPECT_EQ(count(a, Part::kDense), 2u);
  EXPECT_EQ(count(a, Part::kAlwaysOn), 2u * 2);
}

// Sharing saves (2/3)(1 - G/N) Fb/F of the component weights, DESIGN section 2.
TEST(TensorNamesTest, WhatSharingSaves) {
  Architecture shared = mhc(), alone = mhc();
  alone.hierarchy.num_banks = 0;
  alone.hierarchy.base_width = 0;
  alone.hierarchy.unique_width = 16;
  const auto weights = [](const Architecture& a) {
    double n = 0;
    for (const TensorSpec& tensor : tensor_specs(a)) {
      if (tensor.part == Part::kBank || tensor.part == Part::kComponent)
        n += static_cast<double>(num_elements(tensor.shape));
    }
    return n;
  };
  EXPECT_NEAR(weights(shared) / weights(alone), 1 - 2.0 / 3 * (1 - 3.0 / 7) * 6 / 16, 1e-12);
}

TEST(TensorNamesTest, EveryPartHasAName) {
  for (int part = 0; part <= static_cast<int>(Part::kComponentRouter); ++part)
    EXPECT_STRNE(part_name(static_cast<Part>(part)), "");
}

}  // namespace
}  // namespace tessera
