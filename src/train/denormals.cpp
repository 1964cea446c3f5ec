#include "train/denormals.h"

#include "train/tasks.h"

namespace tessera {

void flush_denormals() {
  at::globalContext().setFlushDenormal(true);  // of this thread, and of those that it starts later
  at::parallel_for(0, at::get_num_threads(), 1, [](int64_t, int64_t) { at::globalContext().setFlushDenormal(true); });
}

}  // namespace tessera
