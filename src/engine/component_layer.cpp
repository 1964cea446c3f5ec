#include "engine/component_layer.h"

#include <algorithm>
#include <map>

namespace tessera::engine {

void ComponentLayer::add(const ComponentLayerWeights& weights, const LayerChoice& choice, Activations& normed,
                         float* x_RD, int64_t width) {
  const Hierarchy& h = hierarchy_;
  const int64_t rows = normed.rows, k = h.num_active, base = h.base_width, unique = h.unique_width;
  // Assignments (row, k) sorted by component, and the (row, bank) pairs that they read.
  struct Assignment {
    int32_t component;
    int64_t row;
    float weight;
    int64_t pair = -1;
  };
  std::vector<Assignment> assignments;
  for (int64_t i = 0; i < rows * k; ++i)
    assignments.push_back({choice.ids_RK[static_cast<size_t>(i)], i / k, choice.weights_RK[static_cast<size_t>(i)]});
  std::stable_sort(assignments.begin(), assignments.end(),
                   [](const Assignment& a, const Assignment& b) { return a.component < b.component; });
  std::map<std::pair<int, int64_t>, int64_t> pairs;  // (bank, row), sorted
  if (h.num_banks > 0) {
    for (const Assignment& a : assignments) pairs[{bank_of(h, a.component), a.row}] = 0;
    int64_t next = 0;
    for (auto& [key, index] : pairs) index = next++;
    for (Assignment& a : assignments) a.pair = pairs[{bank_of(h, a.component), a.row}];
  }
  const int64_t count = static_cast<int64_t>(assignments.size());
  bank_pre_.resize(std::max(bank_pre_.size(), pairs.size() * static_cast<size_t>(2 * base)));
  unique_pre_.resize(std::max(unique_pre_.size(), static_cast<size_t>(count * 2 * unique)));

  std::vector<Product> products;
  const auto input = [&](int64_t row, float* y) {
    return ProductRow{normed.row(row), normed.quantised_row(row), y, 1.0f};
  };
  for (auto it = pairs.begin(); it != pairs.end();) {
    const int bank = it->first.first;
    Product gate = {weights.banks[static_cast<size_t>(bank)].gate, {}};
    Product up = {weights.banks[static_cast<size_t>(bank)].up, {}};
    for (; it != pairs.end() && it->first.first == bank; ++it) {
      gate.rows.push_back(input(it->first.second, &bank_pre_[static_cast<size_t>(it->second * 2 * base)]));
      up.rows.push_back(input(it->first.second, &bank_pre_[static_cast<size_t>((it->second * 2 + 1) * base)]));
    }
    products.push_back(std::move(gate));
    products.push_back(std::move(up));
  }
  for (int64_t a = 0; unique > 0 && a < count;) {
    const int32_t component = assignments[static_cast<size_t>(a)].component;
    Product gate = {weights.components[static_cast<size_t>(component)].gate, {}};
    Product up = {weights.components[static_cast<size_t>(component)].up, {}};
    for (; a < count && assignments[static_cast<size_t>(a)].component == component; ++a) {
      const int64_t row = assignments[static_cast<size_t>(a)].row;
      gate.rows.push_back(input(row, &unique_pre_[static_cast<size_t>(a * 2 * unique)]));
      up.rows.push_back(input(row, &unique_pre_[static_cast<size_t>((a * 2 + 1) * unique)]));
    }
    products.push_back(std::move(gate));
    products.push_back(std::move(up));
  }
  if (h.always_on_width > 0) {
    const int64_t always = h.always_on_width;
    always_pre_.resize(std::max(always_pre_.size(), static_cast<size_t>(rows * 2 * always)));
    Product gate_up = {weights.always_on_gate_up, {}};
    for (int64_t r = 0; r < rows; ++r)
      gate_up.rows.push_back(input(r, &always_pre_[static_cast<size_t>(r * 2 * always)]));
    products.push_back(std::move(gate_up));
  }
  transformer_.multiply_all(products, Store::kSet);

  // hidden = [bank ; own part] of each assignment.
  const bool quantise = !weights.components.empty() && weights.components[0].down.is_quantised();
  hidden_.resize(count, base + unique);
  transformer_.pool().run(count, [&](int64_t a, int) {
    float* hidden = hidden_.row(a);
    const int64_t pair = assignments[static_cast<size_t>(a)].pair;
    if (pair >= 0)
      swiglu_row(&bank_pre_[static_cast<size_t>(pair * 2 * base)],
                 &bank_pre_[static_cast<size_t>((pair * 2 + 1) * base)], base, hidden);
    if (unique > 0)
      swiglu_row(&unique_pre_[static_cast<size_t>(a * 2 * unique)],
                 &unique_pre_[static_cast<size_t>((a * 2 + 1) * unique)], unique, hidden + base);
    if (quantise) quantise_row(hidden, base + unique, hidden_.quantised_row(a));
  });

  std::vector<Product> downs;
  for (int64_t a = 0; a < count;) {
    const int32_t component = assignments[static_cast<size_t>(a)].component;
    Product down = {weights.components[static_cast<size_t>(component)].down, {}};
    for (; a < count && assignments[static_cast<size_t>(a)].component == component; ++a) {
      const Assignment& assignment = assignments[static_cast<size_t>(a)];
      down.rows.push_back({hidden_.row(a), hidden_.quantised_row(a), x_RD + assignment.row * width, assignment.weight});
    }
    downs.push_back(std::move(down));
  }
  if (h.always_on_width > 0) {
    transformer_.swiglu(always_pre_.data(), rows, h.always_on_width, weights.always_on_down.is_quantised(), always_);
    Product down = {weights.always_on_down, {}};
    for (int64_t r = 0; r < rows; ++r)
      down.rows.push_back({always_.row(r), always_.quantised_row(r), x_RD + r * width, 1.0f});
    downs.push_back(std::move(down));
  }
  transformer_.add_in_order(downs);
}

}  // namespace tessera::engine
