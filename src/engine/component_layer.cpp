#include "engine/component_layer.h"

#include <algorithm>

namespace tessera::engine {
namespace {

// The component's matrices in the slot that its bytes begin at.
ComponentWeights in_slot(ComponentWeights component, const std::byte* slot) {
  const std::byte* first = component.gate.data ? component.gate.data : component.down.data;
  for (WeightMatrix* matrix : {&component.gate, &component.up, &component.down}) {
    if (matrix->data) matrix->data = slot + (matrix->data - first);
  }
  return component;
}

}  // namespace

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
  std::vector<std::pair<int, int64_t>> pairs;  // (bank, row), sorted
  if (h.num_banks > 0) {
    for (const Assignment& a : assignments) pairs.push_back({bank_of(h, a.component), a.row});
    std::sort(pairs.begin(), pairs.end());
    pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
    for (Assignment& a : assignments) {
      const std::pair pair{bank_of(h, a.component), a.row};
      a.pair = std::lower_bound(pairs.begin(), pairs.end(), pair) - pairs.begin();
    }
  }
  const int64_t count = static_cast<int64_t>(assignments.size());
  std::vector<int64_t> first;  // assignment of each component that was chosen, and the end
  for (int64_t a = 0; a < count; ++a) {
    if (a == 0 || assignments[static_cast<size_t>(a)].component != assignments[static_cast<size_t>(a - 1)].component)
      first.push_back(a);
  }
  const size_t num_chosen = first.size();
  first.push_back(count);
  bank_pre_.resize(std::max(bank_pre_.size(), pairs.size() * static_cast<size_t>(2 * base)));
  unique_pre_.resize(std::max(unique_pre_.size(), static_cast<size_t>(count * 2 * unique)));

  std::vector<Product> products;
  const auto input = [&](int64_t row, float* y) {
    return ProductRow{normed.row(row), normed.quantised_row(row), y, 1.0f};
  };
  for (size_t p = 0; p < pairs.size();) {
    const int bank = pairs[p].first;
    Product gate = {weights.banks[static_cast<size_t>(bank)].gate, {}};
    Product up = {weights.banks[static_cast<size_t>(bank)].up, {}};
    for (; p < pairs.size() && pairs[p].first == bank; ++p) {
      gate.rows.push_back(input(pairs[p].second, &bank_pre_[2 * p * static_cast<size_t>(base)]));
      up.rows.push_back(input(pairs[p].second, &bank_pre_[(2 * p + 1) * static_cast<size_t>(base)]));
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

  // Components in groups: all at once, or those that are in memory. The sums are the same: each row adds its components
  // in the order of their ids.
  hidden_.resize(count, base + unique);
  for (size_t done = 0; done < num_chosen;) {
    const std::vector<const std::byte*> slots =
        residency_ ? residency_->take(num_chosen - done) : std::vector<const std::byte*>();
    const size_t group = residency_ ? slots.size() : num_chosen;
    std::vector<Product> downs;
    for (size_t i = 0; i < group; ++i) {
      const int64_t begin = first[done + i], end = first[done + i + 1];
      const ComponentWeights& given =
          weights.components[static_cast<size_t>(assignments[static_cast<size_t>(begin)].component)];
      const ComponentWeights component = residency_ ? in_slot(given, slots[i]) : given;
      Product gate = {component.gate, {}}, up = {component.up, {}}, down = {component.down, {}};
      for (int64_t a = begin; a < end; ++a) {
        const Assignment& assignment = assignments[static_cast<size_t>(a)];
        down.rows.push_back(
            {hidden_.row(a), hidden_.quantised_row(a), x_RD + assignment.row * width, assignment.weight});
        if (unique == 0) continue;
        gate.rows.push_back(input(assignment.row, &unique_pre_[static_cast<size_t>(a * 2 * unique)]));
        up.rows.push_back(input(assignment.row, &unique_pre_[static_cast<size_t>((a * 2 + 1) * unique)]));
      }
      downs.push_back(std::move(down));
      if (unique == 0) continue;
      products.push_back(std::move(gate));
      products.push_back(std::move(up));
    }
    transformer_.multiply_all(products, Store::kSet);  // with the first group, the banks' too
    products.clear();

    // hidden = [bank ; own part] of each assignment.
    const int64_t begin = first[done], end = first[done + group];
    transformer_.pool().run(end - begin, [&](int64_t i, int) {
      const int64_t a = begin + i, pair = assignments[static_cast<size_t>(a)].pair;
      float* hidden = hidden_.row(a);
      if (pair >= 0)
        swiglu_row(&bank_pre_[static_cast<size_t>(pair * 2 * base)],
                   &bank_pre_[static_cast<size_t>((pair * 2 + 1) * base)], base, hidden);
      if (unique > 0)
        swiglu_row(&unique_pre_[static_cast<size_t>(a * 2 * unique)],
                   &unique_pre_[static_cast<size_t>((a * 2 + 1) * unique)], unique, hidden + base);
      hidden_.quantise(a, downs[0].w);
    });

    done += group;
    if (done == num_chosen && h.always_on_width > 0) {
      transformer_.swiglu(always_pre_.data(), rows, h.always_on_width, weights.always_on_down, always_);
      Product down = {weights.always_on_down, {}};
      for (int64_t r = 0; r < rows; ++r)
        down.rows.push_back({always_.row(r), always_.quantised_row(r), x_RD + r * width, 1.0f});
      downs.push_back(std::move(down));
    }
    transformer_.add_in_order(downs);
    if (residency_) residency_->release();
  }
}

}  // namespace tessera::engine
