// The steps that trunk and routers share, over R rows (tokens of any texts): products, attention with a cache,
// feed-forward. Every row's result is the same bits whatever rows run with it and on how many threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/aligned_vector.h"
#include "engine/kv_cache.h"
#include "engine/thread_pool.h"
#include "engine/weights.h"

namespace tessera::engine {

// Where a row stands in its text, for one transformer.
struct RowPlace {
  KvCache* cache;
  int64_t position;    // in the text: of its rotation, and where its key and value are stored
  int64_t first, end;  // it sees positions [first, end)
};

// cos and sin of positions (Su et al. 2021), as in training: computed in f64, kept in f32.
class Rotary {
 public:
  Rotary() = default;
  Rotary(double theta, int head_dim, std::vector<double> divisors = {})  // Trunk::rope_divisors
      : theta_(theta), half_(head_dim / 2), divisors_(std::move(divisors)) {}
  void reserve(int64_t positions);
  const float* cos(int64_t position) const { return &cos_[static_cast<size_t>(position * half_)]; }
  const float* sin(int64_t position) const { return &sin_[static_cast<size_t>(position * half_)]; }

 private:
  double theta_ = 0;
  int64_t half_ = 0;
  std::vector<double> divisors_;
  std::vector<float> cos_, sin_;
};

// Rows of activations with, where quantised weights will read them, the form that these read.
struct Activations {
  int64_t rows = 0, width = 0;
  AlignedVector<float> values;
  AlignedVector<std::byte> quantised;
  void resize(int64_t new_rows, int64_t new_width) {  // grows only, keeps nothing
    rows = new_rows, width = new_width;
    if (values.size() < static_cast<size_t>(rows * width)) values.resize(static_cast<size_t>(rows * width));
    const size_t bytes = static_cast<size_t>(rows * quantised_row_bytes(width));
    if (quantised.size() < bytes) quantised.resize(bytes);
  }
  float* row(int64_t r) { return values.data() + r * width; }
  void quantise(int64_t r, const WeightMatrix& reader) {  // nothing to do for weights that are not quantised
    if (reader.is_quantised()) quantise_row(row(r), width, reader.type, quantised_row(r));
  }
  std::byte* quantised_row(int64_t r) { return quantised.data() + r * quantised_row_bytes(width); }
};

struct Product {
  WeightMatrix w;
  std::vector<ProductRow> rows;
};

class Transformer {
 public:
  explicit Transformer(ThreadPool& pool);
  ThreadPool& pool() { return pool_; }

  // All products at once; none writes where another does.
  void multiply_all(std::span<const Product> products, Store store);
  // Products of the same outputs that add to the same rows, in the order given.
  void add_in_order(std::span<const Product> products);
  // out[r] = W in[r]. `in` is quantised already when W wants that.
  void project(const WeightMatrix& w, Activations& in, float* out, int64_t out_stride, Store store);

  // normed[r] = rms_norm(x[r]), for the weights that will read it.
  void norm(const float* x_RD, const std::vector<float>& weight, int64_t rows, float eps, const WeightMatrix& reader,
            Activations& normed);
  // [gate | up] rows -> swiglu, for the weights that will read it. `pre` is [rows, 2 width].
  void swiglu(const float* pre, int64_t rows, int64_t width, const WeightMatrix& reader, Activations& out);

  // x += attention(norm(x)) for every row; keys and values of all rows are stored before any row looks.
  void attention(const BlockWeights& block, int layer, int num_heads, float eps, const Rotary& rotary,
                 std::span<const RowPlace> places, float* x_RD);
  // x += down(swiglu(gate_up(norm(x)))).
  void feed_forward(const BlockWeights& block, float eps, int64_t rows, float* x_RD);

  // body(worker, thread, first row, rows): blocks of rows go through several steps on one thread each, in its own
  // cache; where there are too few rows for that, the threads share out the outputs of every product.
  template <class Body>
  void for_row_blocks(int64_t rows, const Body& body) {
    constexpr int64_t kBlockRows = 64;  // what lies between two products stays in a second-level cache
    if (rows < kBlockRows * pool_.size()) return body(*this, 0, int64_t{0}, rows);
    pool_.run(num_blocks(rows, kBlockRows), [&](int64_t i, int thread) {
      Transformer& worker = workers_.empty() ? *this : workers_[static_cast<size_t>(thread)];
      body(worker, thread, i * kBlockRows, std::min(kBlockRows, rows - i * kBlockRows));
    });
  }

 private:
  ThreadPool& pool_;
  std::vector<Transformer> workers_;  // by thread, each of one thread; none when the pool has only one
  Activations normed_, mixed_, hidden_;
  AlignedVector<float> query_, key_, value_, pre_;
  std::vector<std::vector<float>> scratch_;           // by thread
  std::vector<std::vector<const std::byte*>> pages_;  // by thread
};

}  // namespace tessera::engine
