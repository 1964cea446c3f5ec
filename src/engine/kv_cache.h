// Keys and values of one text in one transformer, in pages of 64 positions over all its layers. Full pages can be
// shared with another text that begins alike.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/row_ops.h"

namespace tessera::engine {

class KvCache {
 public:
  KvCache() = default;
  KvCache(KvType type, int num_layers, int num_heads, int head_dim)
      : type_(type),
        num_heads_(num_heads),
        head_dim_(head_dim),
        unit_bytes_(kv_page_bytes(type, head_dim)),
        page_bytes_(unit_bytes_ * num_layers * num_heads) {}

  KvType type() const { return type_; }
  int head_dim() const { return head_dim_; }
  int num_heads() const { return num_heads_; }
  int64_t page_bytes() const { return page_bytes_; }

  // Makes room for positions [0, end).
  void reserve(int64_t end) {
    while (static_cast<int64_t>(pages_.size()) * kPagePositions < end)
      pages_.push_back(std::make_shared<std::byte[]>(static_cast<size_t>(page_bytes_)));
  }
  void store(int layer, int head, int64_t position, const float* key, const float* value) {
    store_kv(type_, unit(layer, head, position / kPagePositions), static_cast<int>(position % kPagePositions), key,
             value, head_dim_);
  }
  // The pages of one layer and head that hold positions [0, end), for attend().
  void list_pages(int layer, int head, int64_t end, std::vector<const std::byte*>& out) const {
    out.clear();
    for (int64_t p = 0; p * kPagePositions < end; ++p) out.push_back(unit(layer, head, p));
  }
  // The same first `end` positions: full pages shared, the last one copied.
  KvCache prefix(int64_t end) const {
    KvCache copy = *this;
    copy.pages_.resize(static_cast<size_t>((end + kPagePositions - 1) / kPagePositions));
    if (end % kPagePositions != 0) {
      const auto page = std::make_shared<std::byte[]>(static_cast<size_t>(page_bytes_));
      std::copy_n(copy.pages_.back().get(), page_bytes_, page.get());
      copy.pages_.back() = page;
    }
    return copy;
  }

 private:
  std::byte* unit(int layer, int head, int64_t page) const {
    return pages_[static_cast<size_t>(page)].get() + (static_cast<int64_t>(layer) * num_heads_ + head) * unit_bytes_;
  }

  KvType type_ = KvType::kF32;
  int num_heads_ = 0, head_dim_ = 0;
  int64_t unit_bytes_ = 0, page_bytes_ = 0;
  std::vector<std::shared_ptr<std::byte[]>> pages_;
};

}  // namespace tessera::engine
