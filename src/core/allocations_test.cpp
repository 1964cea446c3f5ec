// Replaces operator new in the tests of core, to see what the readers of reader_fixture.h allocate.
#include <cstdlib>
#include <new>

#include "core/reader_fixture.h"

namespace {

thread_local size_t largest = 0;

void* allocate(size_t size) {
  if (size > largest) largest = size;
  void* memory = std::malloc(size > 0 ? size : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return allocate(size); }
void* operator new[](size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace tessera {

size_t take_largest_allocation() { return std::exchange(largest, 0); }

TEST(AllocationsTest, TheLargestIsSeen) {
  take_largest_allocation();
  { std::vector<char> bytes(12'345'678, 'x'), few(10, 'y'); }
  EXPECT_EQ(take_largest_allocation(), 12'345'678u);
  EXPECT_LT(take_largest_allocation(), 1000u);
}

}  // namespace tessera
