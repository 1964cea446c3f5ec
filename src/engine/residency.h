// A model under a memory budget: what is always in memory, and a fixed number of slots that hold some components and
// are filled from the file, past the page cache. A planner's choices of a pass are all known when it starts, so a
// thread reads what is missing in the order of use while the layers before run (heads on the trunk: from the first
// component layer on; a gate: each layer's as it is made). What a slot holds changes the time, never the result.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/direct_file.h"
#include "engine/memory_plan.h"

namespace tessera::engine {

// kByRoute reads ahead and evicts what will be used last, as far as the route tells; while plain LRU would have read
// less, it evicts like LRU. kPlainLru is what it is compared with: read when needed, evict the least recently used.
enum class Paging { kByRoute, kPlainLru };

struct ResidencyStatistics {
  int64_t uses = 0;         // components that the layers of all passes took
  int64_t ready = 0;        // of them, in memory when the layer asked
  int64_t reads = 0;        // components read from the file, those read ahead too
  int64_t reads_ahead = 0;  // of them, before a pass asked for them
  int64_t bytes_read = 0;
  double wait_seconds = 0;  // that layers spent waiting
  // Of the uses, what needed no read once the pass had asked.
  double hit_rate() const {
    return uses > 0 ? 1.0 - static_cast<double>(reads - reads_ahead) / static_cast<double>(uses) : 1.0;
  }
};

// Memory from the system, in pages.
class PageBuffer {
 public:
  explicit PageBuffer(int64_t bytes);  // throws Error{kFile} when there is none
  ~PageBuffer();
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_;
};

class Residency {
 public:
  // Reads what is always in memory. `model` outlives the object; allowed [M] as in plan_memory. Throws Error{kFile}.
  Residency(const ModelFolder& model, const MemoryPlan& plan, const std::vector<uint8_t>& allowed, Paging paging);
  ~Residency();

  // A tensor that is always in memory. Of another: its place in the mapped file, where nothing may be read.
  const std::byte* bytes(const TensorInfo& tensor) const;

  // A pass of `num_rows` tokens begins, which choose from the domains active_D.
  void begin_pass(int64_t num_rows, std::vector<uint8_t> active_D);
  // The component layer `layer` (they come in order) chose ids_RK.
  void expect(int layer, std::span<const int32_t> ids_RK);
  // Level 1 has decided: after this pass texts go on in these domains.
  void announce(const std::vector<uint8_t>& active_D);

  // Of the components expected, each once, by layer and id: waits for the next one; gives where it and those behind it
  // that are in memory begin, at most `most`. They stay until release(). Throws what reading threw.
  std::vector<const std::byte*> take(size_t most);
  void release();

  ResidencyStatistics statistics() const;

 private:
  struct Component {
    FileRange range;
    int domain = 0;
    bool is_allowed = true;
    int slot = -1;            // -1: not in memory
    bool is_reading = false;  // into its slot
    bool is_held = false;     // taken
    double rate = 0;          // recent share of tokens that chose it, of those whose domains had it
    int64_t last_use = -1;
    bool is_in_ghost = false;  // plain LRU would have it
  };
  bool is_there(size_t component) const {
    return components_[component].slot >= 0 && !components_[component].is_reading;
  }
  bool is_active(size_t component) const { return active_D_[static_cast<size_t>(components_[component].domain)] != 0; }

  double distance(size_t component) const;
  int slot_for(size_t component, bool is_next) const;
  int least_recently_used() const;
  std::pair<int, int> next_read();
  std::pair<int, int> read_ahead() const;
  void read(size_t component, int slot, std::unique_lock<std::mutex>& lock);
  void serve();  // the reading thread
  void count_for_ghost(Component& component);

  const ModelFolder& model_;
  const DirectFile file_;
  const Paging paging_;
  const int64_t slot_bytes_;
  const size_t num_components_;  // N, of a layer
  std::vector<FileRange> resident_;
  std::vector<std::byte*> resident_at_;  // where each of them begins
  PageBuffer resident_pages_, slots_;

  mutable std::mutex mutex_;
  std::condition_variable reader_, taker_;
  std::vector<Component> components_;  // [L, N]
  std::vector<int> content_;           // component by slot, -1: free
  std::vector<size_t> expected_;       // of the pass, in the order of use
  size_t taken_ = 0, released_ = 0;    // of expected_
  size_t first_unknown_ = 0;           // component; those before it are of layers that have chosen
  int64_t num_rows_ = 1, clock_ = 0;
  std::vector<uint8_t> active_D_;
  bool may_read_ahead_ = true;  // false: there was nothing to, and the domains are the same
  // Of the present window: what was read, and what plain LRU would have read.
  int64_t window_uses_ = 0, window_reads_ = 0, ghost_reads_ = 0, ghost_size_ = 0;
  bool evicts_like_lru_ = false;
  ResidencyStatistics statistics_;
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tessera::engine
