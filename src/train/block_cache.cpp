#include "train/block_cache.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <list>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace tessera {
namespace {

constexpr size_t kSmallestBytes = 256 << 10, kPageBytes = 4 << 10, kLargestStep = 2 << 20;
constexpr size_t kSlack = 32;          // kept and live blocks are together at most 1/32 above the most that was live
constexpr size_t kMostPieces = 16384;  // of all blocks; the system counts mappings (vm.max_map_count)

class BlockCache final : public c10::Allocator {
 public:
  static BlockCache* instance() {
    static BlockCache* cache = new BlockCache(c10::GetDefaultCPUAllocator());  // outlives every tensor
    return cache;
  }

  c10::DataPtr allocate(size_t bytes) override {
    // Sizes that differ a little from step to step fall together.
    const size_t step = std::min(std::bit_floor(bytes) / 16, kLargestStep);
    void* block = bytes < kSmallestBytes ? small_->raw_allocate(bytes) : take((bytes + step - 1) / step * step);
    return {block, block, &give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  // Pages in one row of addresses, in pieces each of which was mapped at once, so that mremap(2) can move it.
  struct Block {
    std::byte* address = nullptr;
    size_t bytes = 0;
    std::vector<size_t> pieces = {};
  };

  explicit BlockCache(c10::Allocator* small) : small_(small) {}

  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(kept_.begin(), kept_.end(), [&](const Block& b) { return b.bytes == bytes; });
    if (it != kept_.end()) {
      Block block = std::move(*it);
      kept_.erase(it);
      kept_bytes_ -= bytes;
      return live(std::move(block));
    }
    const size_t most = std::max(most_live_, live_bytes_ + bytes) / kSlack * (kSlack + 1);
    Block block = map(bytes);
    if (block.address && live_bytes_ + kept_bytes_ + bytes > most && !take_pages(block)) block = {};
    while (!block.address && !kept_.empty()) unmap_oldest(), block = map(bytes);  // under a limit on the process
    if (!block.address) throw std::bad_alloc();
    while (!kept_.empty() && live_bytes_ + kept_bytes_ + bytes > most) unmap_oldest();
    return live(std::move(block));
  }

  Block map(size_t bytes) {
    void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return {};
    ++num_pieces_;
    return {static_cast<std::byte*>(block), bytes, {bytes}};
  }

  // Moves the pages of kept blocks, the oldest first, to the addresses of a block that has none yet. A page moved costs
  // a tenth of one that is given back and faulted in anew. False where the system refuses; the block is gone then.
  bool take_pages(Block& block) {
    std::vector<size_t> pieces;
    size_t filled = 0;
    --num_pieces_;
    while (filled < block.bytes && !kept_.empty() && num_pieces_ < kMostPieces) {
      Block& from = kept_.back();
      const size_t piece = std::min(from.pieces.back(), block.bytes - filled);
      std::byte* to = block.address + filled;
      if (mremap(from.address + from.bytes - piece, piece, piece, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
        munmap(block.address, filled);  // of the piece's addresses nothing is known
        if (to + piece < block.address + block.bytes) munmap(to + piece, block.bytes - filled - piece);
        num_pieces_ -= pieces.size();
        return false;
      }
      filled += piece;
      pieces.push_back(piece);
      ++num_pieces_;
      from.bytes -= piece;
      kept_bytes_ -= piece;
      from.pieces.back() -= piece;
      if (from.pieces.back() == 0) from.pieces.pop_back(), --num_pieces_;
      if (from.bytes == 0) kept_.pop_back();
    }
    if (filled < block.bytes) pieces.push_back(block.bytes - filled), ++num_pieces_;
    block.pieces = std::move(pieces);
    return true;
  }

  void unmap_oldest() {
    munmap(kept_.back().address, kept_.back().bytes);
    kept_bytes_ -= kept_.back().bytes;
    num_pieces_ -= kept_.back().pieces.size();
    kept_.pop_back();
  }

  void* live(Block block) {
    void* address = block.address;
    live_bytes_ += block.bytes;
    most_live_ = std::max(most_live_, live_bytes_);
    live_[address] = std::move(block);
    return address;
  }

  static void give_back(void* block) {
    if (!instance()->keep(block)) instance()->small_->raw_deallocate(block);
  }

  bool keep(void* block) {  // false: a small one, or made before this cache
    if (reinterpret_cast<uintptr_t>(block) % kPageBytes != 0) return false;
    const std::lock_guard lock(mutex_);
    const auto it = live_.find(block);
    if (it == live_.end()) return false;
    live_bytes_ -= it->second.bytes;
    kept_bytes_ += it->second.bytes;
    kept_.push_front(std::move(it->second));
    live_.erase(it);
    return true;
  }

  c10::Allocator* small_;
  std::mutex mutex_;
  std::list<Block> kept_;  // the last freed first
  std::unordered_map<void*, Block> live_;
  size_t live_bytes_ = 0, kept_bytes_ = 0, most_live_ = 0;
  size_t num_pieces_ = 0;
};

}  // namespace

void use_block_cache() { c10::SetCPUAllocator(BlockCache::instance()); }

}  // namespace tessera
