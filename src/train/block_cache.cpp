#include "train/block_cache.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <list>
#include <mutex>
#include <new>
#include <unordered_map>

namespace tessera {
namespace {

constexpr size_t kSmallestBytes = 256 << 10, kPageBytes = 4 << 10;
constexpr size_t kHugeBytes = 4 << 20;  // of a block with whole huge pages (2 MiB) wherever it begins

class BlockCache final : public c10::Allocator {
 public:
  static BlockCache* instance() {
    static BlockCache* cache = new BlockCache(c10::GetDefaultCPUAllocator());  // outlives every tensor
    return cache;
  }

  c10::DataPtr allocate(size_t bytes) override {
    const size_t step = std::bit_floor(bytes) / 16;  // sizes that differ a little from step to step fall together
    void* block = bytes < kSmallestBytes ? small_->raw_allocate(bytes) : take((bytes + step - 1) / step * step);
    return {block, block, &give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  struct Block {
    void* address;
    size_t bytes;
  };

  explicit BlockCache(c10::Allocator* small) : small_(small) {}

  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(kept_.begin(), kept_.end(), [&](const Block& b) { return b.bytes == bytes; });
    if (it != kept_.end()) {
      void* block = it->address;
      kept_.erase(it);
      kept_bytes_ -= bytes;
      return live(block, bytes);
    }
    const size_t most = std::max(most_live_, live_bytes_ + bytes) / 4 * 5;
    while (!kept_.empty() && live_bytes_ + kept_bytes_ + bytes > most) unmap_oldest();
    void* block = map(bytes);
    while (!block && !kept_.empty()) unmap_oldest(), block = map(bytes);  // under a limit on the process
    if (!block) throw std::bad_alloc();
    return live(block, bytes);
  }

  static void* map(size_t bytes) {
    void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return nullptr;
    if (bytes >= kHugeBytes) madvise(block, bytes, MADV_HUGEPAGE);  // only a wish
    return block;
  }

  void unmap_oldest() {
    munmap(kept_.back().address, kept_.back().bytes);
    kept_bytes_ -= kept_.back().bytes;
    kept_.pop_back();
  }

  void* live(void* block, size_t bytes) {
    sizes_[block] = bytes;
    live_bytes_ += bytes;
    most_live_ = std::max(most_live_, live_bytes_);
    return block;
  }

  static void give_back(void* block) {
    if (!instance()->keep(block)) instance()->small_->raw_deallocate(block);
  }

  bool keep(void* block) {  // false: a small one, or made before this cache
    if (reinterpret_cast<uintptr_t>(block) % kPageBytes != 0) return false;
    const std::lock_guard lock(mutex_);
    const auto it = sizes_.find(block);
    if (it == sizes_.end()) return false;
    live_bytes_ -= it->second;
    kept_bytes_ += it->second;
    kept_.push_front({block, it->second});
    sizes_.erase(it);
    return true;
  }

  c10::Allocator* small_;
  std::mutex mutex_;
  std::list<Block> kept_;  // the last freed first
  std::unordered_map<void*, size_t> sizes_;
  size_t live_bytes_ = 0, kept_bytes_ = 0, most_live_ = 0;
};

}  // namespace

void use_block_cache() { c10::SetCPUAllocator(BlockCache::instance()); }

}  // namespace tessera
