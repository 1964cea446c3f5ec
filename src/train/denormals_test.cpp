#include "train/denormals.h"

#include <gtest/gtest.h>

#include <limits>

#include "train/precompiled.h"
#include "train/tasks.h"

namespace tessera {
namespace {

TEST(Denormals, AreNoughtOnEveryThread) {
  at::parallel_for(0, 2, 1, [](int64_t, int64_t) {});  // the threads are there before
  flush_denormals();
  std::atomic<int> kept = 0;
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const volatile float least = std::numeric_limits<float>::min();
    kept += least * 0.5f != 0;
    at::globalContext().setFlushDenormal(false);
  });
  at::globalContext().setFlushDenormal(false);
  EXPECT_EQ(kept, 0);
}

}  // namespace
}  // namespace tessera
