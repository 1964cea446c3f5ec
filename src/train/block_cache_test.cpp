#include "train/block_cache.h"

#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "base/peak_memory.h"
#include "train/torch.h"

namespace tessera {
namespace {

at::Tensor written(int64_t bytes) { return at::ones({bytes}, at::kByte); }

int64_t page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

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

TEST(BlockCache, PagesOfFreedBlocksServeTensorsOfOtherSizes) {
  use_block_cache();
  const auto round = [](uint8_t value) {
    at::Tensor large = at::full({int64_t{96} << 20}, value, at::kByte);
    EXPECT_EQ(large[(96 << 20) - 1].item<uint8_t>(), value);
    large.reset();
    std::vector<at::Tensor> several;
    for (const int64_t mib : {17, 30, 23, 9, 14}) several.push_back(at::full({mib << 20}, value, at::kByte));
    for (const at::Tensor& t : several) {
      EXPECT_EQ(t.min().item<uint8_t>(), value);
      EXPECT_EQ(t.max().item<uint8_t>(), value);
    }
  };
  round(1);
  const int64_t before = page_faults();
  round(2), round(3);
  EXPECT_LT(page_faults() - before, 5000);  // of some 100,000 when every page came anew
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
