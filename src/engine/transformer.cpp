#include "engine/transformer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tessera::engine {

void Rotary::reserve(int64_t positions) {
  for (int64_t p = half_ ? static_cast<int64_t>(cos_.size()) / half_ : positions; p < positions; ++p) {
    for (int64_t i = 0; i < half_; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(theta_, -static_cast<double>(2 * i) / static_cast<double>(2 * half_));
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

namespace {

// Outputs a task: enough tasks to share out evenly, none so small that handing it out costs more than doing it.
int64_t task_outputs(int64_t outputs, int64_t work_an_output, int threads) {
  constexpr int64_t kLeastWork = 1 << 14;  // multiply-adds
  const int64_t fair = num_blocks(outputs, 4 * threads),
                least = num_blocks(kLeastWork, std::max<int64_t>(1, work_an_output));
  return num_blocks(std::max(fair, least), kBlockOutputs) * kBlockOutputs;
}

}  // namespace

void Transformer::multiply_all(std::span<const Product> products, Store store) {
  int64_t num_tasks = 0;
  std::vector<int64_t> first_task(products.size() + 1, 0), step(products.size());
  for (size_t p = 0; p < products.size(); ++p) {
    const WeightMatrix& w = products[p].w;
    step[p] = task_outputs(w.outputs, w.inputs * static_cast<int64_t>(products[p].rows.size()), pool_.size());
    if (!products[p].rows.empty()) num_tasks += num_blocks(w.outputs, step[p]);
    first_task[p + 1] = num_tasks;
  }
  pool_.run(num_tasks, [&](int64_t task, int) {
    const size_t p =
        static_cast<size_t>(std::upper_bound(first_task.begin(), first_task.end(), task) - first_task.begin()) - 1;
    const int64_t begin = (task - first_task[p]) * step[p];
    multiply(products[p].w, begin, std::min(products[p].w.outputs, begin + step[p]), products[p].rows, store);
  });
}

void Transformer::add_in_order(std::span<const Product> products) {
  int64_t outputs = 0, work = 0;
  for (const Product& p : products) {
    outputs = std::max(outputs, p.w.outputs);
    work += p.w.inputs * static_cast<int64_t>(p.rows.size());
  }
  const int64_t step = task_outputs(outputs, work, pool_.size());
  pool_.run(num_blocks(outputs, step), [&](int64_t task, int) {
    for (const Product& p : products)
      multiply(p.w, task * step, std::min(p.w.outputs, task * step + step), p.rows, Store::kAdd);
  });
}

void Transformer::project(const WeightMatrix& w, Activations& in, float* out, int64_t out_stride, Store store) {
  Product product = {w, {}};
  for (int64_t r = 0; r < in.rows; ++r)
    product.rows.push_back({in.row(r), in.quantised_row(r), out + r * out_stride, 1.0f});
  multiply_all({&product, 1}, store);
}

void Transformer::norm(const float* x_RD, const std::vector<float>& weight, int64_t rows, float eps, bool quantise,
                       Activations& normed) {
  const int64_t width = static_cast<int64_t>(weight.size());
  normed.resize(rows, width);
  pool_.run(rows, [&](int64_t r, int) {
    rms_norm_row(x_RD + r * width, weight.data(), width, eps, normed.row(r));
    if (quantise) quantise_row(normed.row(r), width, normed.quantised_row(r));
  });
}

void Transformer::swiglu(const float* pre, int64_t rows, int64_t width, bool quantise, Activations& out) {
  out.resize(rows, width);
  pool_.run(rows, [&](int64_t r, int) {
    swiglu_row(pre + 2 * r * width, pre + (2 * r + 1) * width, width, out.row(r));
    if (quantise) quantise_row(out.row(r), width, out.quantised_row(r));
  });
}

void Transformer::attention(const BlockWeights& block, int layer, int num_heads, float eps, const Rotary& rotary,
                            std::span<const RowPlace> places, float* x_RD) {
  const int64_t rows = static_cast<int64_t>(places.size()), width = block.output.outputs;
  const int64_t num_kv = places[0].cache->num_heads(), head = places[0].cache->head_dim(), group = num_heads / num_kv;
  const int64_t query_width = num_heads * head, kv_width = num_kv * head;
  norm(x_RD, block.attention_norm, rows, eps, block.query.is_quantised(), normed_);
  query_.resize(std::max(query_.size(), static_cast<size_t>(rows * query_width)));
  key_.resize(std::max(key_.size(), static_cast<size_t>(rows * kv_width)));
  value_.resize(std::max(value_.size(), static_cast<size_t>(rows * kv_width)));
  Product products[3] = {{block.query, {}}, {block.key, {}}, {block.value, {}}};
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = normed_.row(r);
    const std::byte* quantised = normed_.quantised_row(r);
    products[0].rows.push_back({x, quantised, query_.data() + r * query_width, 1.0f});
    products[1].rows.push_back({x, quantised, key_.data() + r * kv_width, 1.0f});
    products[2].rows.push_back({x, quantised, value_.data() + r * kv_width, 1.0f});
  }
  multiply_all(products, Store::kSet);

  pool_.run(rows, [&](int64_t r, int) {
    const RowPlace& place = places[static_cast<size_t>(r)];
    const float *cos = rotary.cos(place.position), *sin = rotary.sin(place.position);
    for (int64_t h = 0; h < num_heads; ++h) rotate_row(query_.data() + r * query_width + h * head, cos, sin, head);
    for (int64_t h = 0; h < num_kv; ++h) {
      float* key = key_.data() + r * kv_width + h * head;
      rotate_row(key, cos, sin, head);
      place.cache->store(layer, static_cast<int>(h), place.position, key, value_.data() + r * kv_width + h * head);
    }
  });

  // Tiles of rows of one text, so that a page is read once for several of them.
  struct Tile {
    int64_t begin, count, end;  // rows; positions
  };
  std::vector<Tile> tiles;
  const int64_t most = group % 4 == 0 ? 2 : group % 2 == 0 ? 4 : 8;  // queries in fours, as attend() takes them
  for (int64_t r = 0; r < rows; ++r) {
    const RowPlace& place = places[static_cast<size_t>(r)];
    if (tiles.empty() || tiles.back().count == most || places[static_cast<size_t>(r - 1)].cache != place.cache)
      tiles.push_back({r, 0, 0});
    ++tiles.back().count;
    tiles.back().end = std::max(tiles.back().end, place.end);
  }
  mixed_.resize(rows, query_width);
  scratch_.resize(static_cast<size_t>(pool_.size()));
  pages_.resize(static_cast<size_t>(pool_.size()));
  pool_.run(static_cast<int64_t>(tiles.size()) * num_kv, [&](int64_t task, int thread) {
    const Tile& tile = tiles[static_cast<size_t>(task / num_kv)];
    const int64_t kv = task % num_kv;
    const KvCache& cache = *places[static_cast<size_t>(tile.begin)].cache;
    std::vector<AttentionQuery> queries;
    for (int64_t r = tile.begin; r < tile.begin + tile.count; ++r) {
      const RowPlace& place = places[static_cast<size_t>(r)];
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
        queries.push_back(
            {query_.data() + r * query_width + h * head, mixed_.row(r) + h * head, place.first, place.end});
    }
    std::vector<float>& scratch = scratch_[static_cast<size_t>(thread)];
    const size_t needed = static_cast<size_t>(attention_scratch(4, tile.end, head));
    if (scratch.size() < needed) scratch.resize(needed);
    std::vector<const std::byte*>& pages = pages_[static_cast<size_t>(thread)];
    cache.list_pages(layer, static_cast<int>(kv), tile.end, pages);
    attend(cache.type(), pages, head, queries, scratch.data());
  });
  if (block.output.is_quantised())
    pool_.run(rows, [&](int64_t r, int) { quantise_row(mixed_.row(r), query_width, mixed_.quantised_row(r)); });
  project(block.output, mixed_, x_RD, width, Store::kAdd);
}

void Transformer::feed_forward(const BlockWeights& block, float eps, int64_t rows, float* x_RD) {
  const int64_t width = block.down.inputs;
  norm(x_RD, block.feed_forward_norm, rows, eps, block.gate_up.is_quantised(), normed_);
  pre_.resize(std::max(pre_.size(), static_cast<size_t>(rows * 2 * width)));
  project(block.gate_up, normed_, pre_.data(), 2 * width, Store::kSet);
  swiglu(pre_.data(), rows, width, block.down.is_quantised(), hidden_);
  project(block.down, hidden_, x_RD, block.down.outputs, Store::kAdd);
}

}  // namespace tessera::engine
