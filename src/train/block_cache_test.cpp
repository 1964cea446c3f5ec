#include "train/block_cache.h"

#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/peak_memory.h"
#include "train/torch.h"

namespace tessera {
namespace {

at::Tensor written(int64_t bytes) { return at::ones({bytes}, at::kByte); }

// First, since the others leave blocks.
TEST(BlockCache, KeepsLittleMoreThanWasAliveAtOnce) {
  use_block_cache();
  const int64_t before = rss_bytes();
  written(int64_t{64} << 20);
  int64_t most = 0, kept = 0;
  for (int64_t mib = 8; mib < 30; ++mib) {  // one after the other, each of a size of its own
    written(mib << 20);
    kept = rss_bytes() - before;
    most = std::max(most, kept);
  }
  EXPECT_LT(most, 72 << 20);  // 33/32 of 64 MiB, and what else the process took
  EXPECT_GT(kept, 45 << 20);  // 28 and 29 MiB at least
}

// Share of the tensor's pages that are in memory, before anything is written to it.
double resident(const at::Tensor& tensor) {
  std::vector<unsigned char> pages(static_cast<size_t>(tensor.numel()) / 4096);
  EXPECT_EQ(mincore(tensor.data_ptr(), pages.size() * 4096, pages.data()), 0);
  return static_cast<double>(std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; })) /
         static_cast<double>(pages.size());
}

TEST(BlockCache, PagesOfFreedBlocksServeTensorsOfOtherSizes) {
  use_block_cache();
  for (const uint8_t value : {1, 2, 3}) {
    at::Tensor large = at::full({int64_t{96} << 20}, value, at::kByte);
    EXPECT_EQ(large.min().item<uint8_t>(), value);
    large.reset();
    std::vector<at::Tensor> several;
    for (const int64_t mib : {17, 30, 23, 9, 14}) {
      several.push_back(at::empty({mib << 20}, at::kByte));
      EXPECT_GT(resident(several.back()), 0.9);
      several.back().fill_(value);
    }
    for (const at::Tensor& t : several) {
      EXPECT_EQ(t.min().item<uint8_t>(), value);
      EXPECT_EQ(t.max().item<uint8_t>(), value);
    }
  }
}

TEST(BlockCache, AFreedBlockServesTheNextTensorOfItsSize) {
  use_block_cache();
  const void* first = written(3 << 20).data_ptr();
  EXPECT_EQ(written((3 << 20) - 1000).data_ptr(), first) << "a little smaller: the same block";
  at::Tensor held = written(3 << 20), other = written(3 << 20);
  EXPECT_EQ(held.data_ptr(), first);
  EXPECT_NE(other.data_ptr(), first) << "the block is taken";
  EXPECT_EQ(other.sum().item<int64_t>(), 3 << 20);
}

TEST(BlockCache, SmallTensorsAreLeftToTheUsualAllocator) {
  at::Tensor before = written(1000);
  use_block_cache();
  at::Tensor after = written(1000);
  EXPECT_EQ((before + after).sum().item<int64_t>(), 2000);
}

TEST(BlockCache, TensorsMadeBeforeAreFreedAfterwards) {
  at::Tensor before = written(3 << 20);
  use_block_cache();
  before.reset();
  EXPECT_EQ(written(3 << 20).sum().item<int64_t>(), 3 << 20);
}

TEST(BlockCache, BareMemoryIsGivenBackWhateverItsSizeAndAge) {  // as MKL-DNN asks for it
  c10::Allocator& before = *c10::GetCPUAllocator();
  void* old = before.raw_allocate(1000);
  use_block_cache();
  c10::Allocator& cache = *c10::GetCPUAllocator();
  cache.raw_deallocate(old);
  for (const size_t bytes : {size_t{0}, size_t{100}, size_t{1} << 20}) cache.raw_deallocate(cache.raw_allocate(bytes));
}

}  // namespace
}  // namespace tessera
