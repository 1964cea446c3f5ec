#include "engine/transformer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/bf16_amx.h"
#include "kernels/quant_matvec.h"

namespace tessera::engine {

void Rotary::reserve(int64_t positions) {
  for (int64_t p = half_ ? static_cast<int64_t>(cos_.size()) / half_ : positions; p < positions; ++p) {
    for (int64_t i = 0; i < half_; ++i) {
      double angle =
          static_cast<double>(p) * std::pow(theta_, -static_cast<double>(2 * i) / static_cast<double>(2 * half_));
      if (!divisors_.empty()) angle /= divisors_[static_cast<size_t>(i)];
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

namespace {

// Tiles pack a product's rows anew for each task.
bool packs_rows(const Product& p) {
  constexpr size_t kLeastRows = 32;
  static const bool packs_quantised = quantised_ways()[0].name == "amx-int8";
  return p.rows.size() >= kLeastRows &&
         (p.w.is_quantised() ? packs_quantised : p.w.type == WeightType::kBF16 && has_amx_bf16());
}

// Outputs a task: enough tasks to share out evenly, none so small that handing it out costs more than doing it.
int64_t task_outputs(int64_t outputs, int64_t work_an_output, int threads, bool packs) {
  constexpr int64_t kLeastWork = 1 << 14, kWorthPacking = 128;  // multiply-adds; outputs
  const int64_t fair = num_blocks(outputs, 16 * threads),
                least = num_blocks(kLeastWork, std::max<int64_t>(1, work_an_output)),
                packed = packs ? std::min(kWorthPacking, num_blocks(outputs, threads)) : 1;
  return num_blocks(std::max({fair, least, packed}), kBlockOutputs) * kBlockOutputs;
}

ThreadPool& one_thread() {
  static ThreadPool pool(1);  // runs what it is given on the caller's thread, whoever calls
  return pool;
}

// rows [first, first + count) of a product with `in`.
Product product_of(const WeightMatrix& w, Activations& in, int64_t first, int64_t count, float* out,
                   int64_t out_stride) {
  Product product = {w, {}};
  for (int64_t r = first; r < first + count; ++r)
    product.rows.push_back({in.row(r), in.quantised_row(r), out + r * out_stride, 1.0f});
  return product;
}

}  // namespace

Transformer::Transformer(ThreadPool& pool) : pool_(pool) {
  for (int t = 0; pool.size() > 1 && t < pool.size(); ++t) workers_.emplace_back(one_thread());
}

void Transformer::multiply_all(std::span<const Product> products, Store store) {
  int64_t num_tasks = 0;
  std::vector<int64_t> first_task(products.size() + 1, 0), step(products.size());
  for (size_t p = 0; p < products.size(); ++p) {
    const WeightMatrix& w = products[p].w;
    step[p] = task_outputs(w.outputs, w.inputs * static_cast<int64_t>(products[p].rows.size()), pool_.size(),
                           packs_rows(products[p]));
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
  bool packs = false;
  for (const Product& p : products) {
    outputs = std::max(outputs, p.w.outputs);
    work += p.w.inputs * static_cast<int64_t>(p.rows.size());
    packs = packs || packs_rows(p);
  }
  const int64_t step = task_outputs(outputs, work, pool_.size(), packs);
  pool_.run(num_blocks(outputs, step), [&](int64_t task, int) {
    for (const Product& p : products)
      multiply(p.w, task * step, std::min(p.w.outputs, task * step + step), p.rows, Store::kAdd);
  });
}

void Transformer::project(const WeightMatrix& w, Activations& in, float* out, int64_t out_stride, Store store) {
  const Product product = product_of(w, in, 0, in.rows, out, out_stride);
  multiply_all({&product, 1}, store);
}

void Transformer::norm(const float* x_RD, const std::vector<float>& weight, int64_t rows, float eps,
                       const WeightMatrix& reader, Activations& normed) {
  const int64_t width = static_cast<int64_t>(weight.size());
  normed.resize(rows, width);
  pool_.run(rows, [&](int64_t r, int) {
    rms_norm_row(x_RD + r * width, weight.data(), width, eps, normed.row(r));
    normed.quantise(r, reader);
  });
}

void Transformer::swiglu(const float* pre, int64_t rows, int64_t width, const WeightMatrix& reader, Activations& out) {
  out.resize(rows, width);
  pool_.run(rows, [&](int64_t r, int) {
    swiglu_row(pre + 2 * r * width, pre + (2 * r + 1) * width, width, out.row(r));
    out.quantise(r, reader);
  });
}

void Transformer::attention(const BlockWeights& block, int layer, int num_heads, float eps, const Rotary& rotary,
                            std::span<const RowPlace> places, float* x_RD) {
  const int64_t rows = static_cast<int64_t>(places.size()), width = block.output.outputs;
  const int64_t num_kv = places[0].cache->num_heads(), head = places[0].cache->head_dim(), group = num_heads / num_kv;
  const int64_t query_width = num_heads * head, kv_width = num_kv * head;
  query_.resize(std::max(query_.size(), static_cast<size_t>(rows * query_width)));
  for_row_blocks(rows, [&](Transformer& worker, int, int64_t first, int64_t count) {
    Activations& normed = worker.normed_;
    worker.norm(x_RD + first * width, block.attention_norm, count, eps, block.query, normed);
    worker.key_.resize(std::max(worker.key_.size(), static_cast<size_t>(count * kv_width)));
    worker.value_.resize(std::max(worker.value_.size(), static_cast<size_t>(count * kv_width)));
    float *query = query_.data() + first * query_width, *keys = worker.key_.data(), *values = worker.value_.data();
    const Product products[3] = {product_of(block.query, normed, 0, count, query, query_width),
                                 product_of(block.key, normed, 0, count, keys, kv_width),
                                 product_of(block.value, normed, 0, count, values, kv_width)};
    worker.multiply_all(products, Store::kSet);
    worker.pool_.run(count, [&](int64_t r, int) {
      const RowPlace& place = places[static_cast<size_t>(first + r)];
      const float *cos = rotary.cos(place.position), *sin = rotary.sin(place.position);
      for (int64_t h = 0; h < num_heads; ++h) rotate_row(query + r * query_width + h * head, cos, sin, head);
      for (int64_t h = 0; h < num_kv; ++h) {
        float* key = keys + r * kv_width + h * head;
        rotate_row(key, cos, sin, head);
        place.cache->store(layer, static_cast<int>(h), place.position, key, values + r * kv_width + h * head);
      }
    });
  });

  // Tiles of rows of one text, so that a page is read once for several of them.
  struct Tile {
    int64_t begin, count, end;  // rows; positions
  };
  std::vector<Tile> tiles;
  const int64_t most = group % 4 == 0 ? 2 : group % 2 == 0 ? 4 : 8;  // queries in eights, as attend() takes them
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
    const size_t needed = static_cast<size_t>(attention_scratch(tile.end, head));
    if (scratch.size() < needed) scratch.resize(needed);
    std::vector<const std::byte*>& pages = pages_[static_cast<size_t>(thread)];
    cache.list_pages(layer, static_cast<int>(kv), tile.end, pages);
    attend(cache.type(), pages, head, queries, scratch.data());
  });
  for_row_blocks(rows, [&](Transformer& worker, int, int64_t first, int64_t count) {
    if (block.output.is_quantised()) {
      worker.pool_.run(count, [&](int64_t r, int) { mixed_.quantise(first + r, block.output); });
    }
    const Product product = product_of(block.output, mixed_, first, count, x_RD, width);
    worker.multiply_all({&product, 1}, Store::kAdd);
  });
}

void Transformer::feed_forward(const BlockWeights& block, float eps, int64_t rows, float* x_RD) {
  const int64_t width = block.down.inputs, model_width = block.down.outputs;
  for_row_blocks(rows, [&](Transformer& worker, int, int64_t first, int64_t count) {
    float* x = x_RD + first * model_width;
    worker.norm(x, block.feed_forward_norm, count, eps, block.gate_up, worker.normed_);
    worker.pre_.resize(std::max(worker.pre_.size(), static_cast<size_t>(count * 2 * width)));
    worker.project(block.gate_up, worker.normed_, worker.pre_.data(), 2 * width, Store::kSet);
    worker.swiglu(worker.pre_.data(), count, width, block.down, worker.hidden_);
    worker.project(block.down, worker.hidden_, x, model_width, Store::kAdd);
  });
}

}  // namespace tessera::engine
