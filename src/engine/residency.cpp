#include "engine/residency.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace tessera::engine {
namespace {

constexpr double kKeptPerToken = 0.97;  // of a component's recent rate
constexpr double kFarthest = 1e15;      // beyond any distance; differences of 1 are exact below it
constexpr int64_t kWindowUses = 2048;   // after which plain LRU's reads are compared with ours

}  // namespace

PageBuffer::PageBuffer(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
  if (bytes_ == 0) return;
  void* data = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    throw Error(ErrorCode::kFile, fmt::format("the system has no {} bytes of memory", bytes), "lower --memory");
  ::madvise(data, bytes_, MADV_HUGEPAGE);  // fewer pages to pin for a direct read
  data_ = static_cast<std::byte*>(data);
}

PageBuffer::~PageBuffer() {
  if (data_) ::munmap(data_, bytes_);
}

Residency::Residency(const ModelFolder& model, const MemoryPlan& plan, const std::vector<uint8_t>& allowed,
                     Paging paging)
    : model_(model),
      file_(model.weights->path()),
      paging_(paging),
      slot_bytes_(plan.slot_bytes),
      num_components_(static_cast<size_t>(num_components(model.architecture.hierarchy))),
      resident_(resident_ranges(model, allowed)),
      resident_pages_(plan.resident_bytes),
      slots_(plan.num_slots * plan.slot_bytes),
      content_(static_cast<size_t>(plan.num_slots), -1) {
  const Hierarchy& h = model.architecture.hierarchy;
  std::byte* at = resident_pages_.data();
  for (const FileRange& range : resident_) {
    const int64_t page = range.begin / kPageBytes * kPageBytes;
    file_.read(page, range.end - page, at);
    resident_at_.push_back(at + (range.begin - page));
    at += whole_pages(range.end - page);
  }
  const std::vector<uint8_t> allowed_N = allowed_components(h, allowed);
  const std::vector<int> owner_N = owner_of_components(h);
  for (const FileRange& range : component_ranges(model)) {
    const size_t id = components_.size() % num_components_;
    Component component;
    component.range = range;
    component.domain = owner_N[id];
    component.is_allowed = allowed_N[id];
    component.rate = static_cast<double>(h.num_active) / static_cast<double>(num_components_);
    components_.push_back(component);
  }
  for (const Domain& domain : h.domains) active_D_.push_back(domain.always);
  if (paging_ == Paging::kByRoute && !components_.empty()) thread_ = std::thread([this] { serve(); });
}

Residency::~Residency() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  reader_.notify_one();
  if (thread_.joinable()) thread_.join();
}

const std::byte* Residency::bytes(const TensorInfo& tensor) const {
  const int64_t begin = static_cast<int64_t>(tensor.begin);
  const auto after = std::upper_bound(resident_.begin(), resident_.end(), begin,
                                      [](int64_t value, const FileRange& range) { return value < range.begin; });
  const size_t i = static_cast<size_t>(after - resident_.begin());
  if (i > 0 && begin < resident_[i - 1].end) return resident_at_[i - 1] + (begin - resident_[i - 1].begin);
  return model_.weights->bytes(tensor).data();
}

void Residency::begin_pass(int64_t num_rows, std::vector<uint8_t> active_D) {
  release();
  {
    const std::lock_guard lock(mutex_);
    expected_.clear();
    taken_ = released_ = first_unknown_ = 0;
    num_rows_ = num_rows;
    may_read_ahead_ |= active_D != active_D_;
    active_D_ = std::move(active_D);
    failure_ = nullptr;
  }
  reader_.notify_one();
}

void Residency::expect(int layer, std::span<const int32_t> ids_RK) {
  const size_t first = static_cast<size_t>(layer) * num_components_;
  std::vector<int64_t> rows(num_components_, 0);
  for (int32_t id : ids_RK) ++rows[static_cast<size_t>(id)];
  const double kept = std::pow(kKeptPerToken, static_cast<double>(num_rows_));
  {
    const std::lock_guard lock(mutex_);
    first_unknown_ = first + num_components_;
    for (size_t id = 0; id < num_components_; ++id) {
      Component& c = components_[first + id];
      if (rows[id] > 0) expected_.push_back(first + id);
      if (!is_active(first + id)) continue;
      c.rate = kept * c.rate + (1 - kept) * static_cast<double>(rows[id]) / static_cast<double>(num_rows_);
    }
  }
  reader_.notify_one();
}

void Residency::announce(const std::vector<uint8_t>& active_D) {
  {
    const std::lock_guard lock(mutex_);
    for (size_t d = 0; d < active_D.size(); ++d) {
      may_read_ahead_ |= active_D[d] > active_D_[d];
      active_D_[d] |= active_D[d];
    }
  }
  reader_.notify_one();
}

// How far off the next use is expected, in components that the layers pass by until then: known for what the pass will
// use, else by the chance that a pass of so many tokens uses it. What no active domain has comes last.
double Residency::distance(size_t component) const {
  const size_t now = taken_ < expected_.size() ? expected_[taken_] : components_.size();
  const double ahead = static_cast<double>(component) - static_cast<double>(now);
  const auto rest = expected_.begin() + static_cast<int64_t>(taken_);
  if (std::binary_search(rest, expected_.end(), component)) return ahead;
  const double rate = components_[component].rate;
  const double chance = is_active(component) ? 1 - std::pow(1 - rate, static_cast<double>(num_rows_)) : 1e-4 * rate;
  const double passes = 1 / std::max(chance, 1e-9) - (component >= first_unknown_ ? 1 : 0);
  return passes * static_cast<double>(components_.size()) + ahead;
}

int Residency::least_recently_used() const {
  int best = -1;
  for (size_t slot = 0; slot < content_.size(); ++slot) {
    if (content_[slot] < 0) return static_cast<int>(slot);
    const Component& c = components_[static_cast<size_t>(content_[slot])];
    if (c.is_held || c.is_reading) continue;
    if (best < 0 || c.last_use < components_[static_cast<size_t>(content_[static_cast<size_t>(best)])].last_use)
      best = static_cast<int>(slot);
  }
  return best;
}

// A free slot, or that of the component whose next use is farther off than this one's, and the farthest. -1: none now.
// What the pass still wants gives way only to what it wants next: soon there will be slots that it is done with.
int Residency::slot_for(size_t component, bool is_next) const {
  int best = -1;
  double best_distance = distance(component);
  const auto rest = expected_.begin() + static_cast<int64_t>(taken_);
  for (size_t slot = 0; slot < content_.size(); ++slot) {
    if (content_[slot] < 0) return static_cast<int>(slot);
    const size_t content = static_cast<size_t>(content_[slot]);
    const Component& c = components_[content];
    if (c.is_held || c.is_reading) continue;
    const bool is_wanted = std::binary_search(rest, expected_.end(), content);
    if (is_wanted && !is_next) continue;
    const double its_distance =
        evicts_like_lru_ && !is_wanted ? kFarthest - static_cast<double>(c.last_use) : distance(content);
    if (its_distance > best_distance) best_distance = its_distance, best = static_cast<int>(slot);
  }
  return best;
}

// Component and slot: what the pass needs next; when it has all, what may be needed soon. {-1, -1}: nothing.
std::pair<int, int> Residency::next_read() {
  for (size_t i = taken_; i < expected_.size(); ++i) {
    if (components_[expected_[i]].slot >= 0) continue;
    const int slot = slot_for(expected_[i], i == taken_);
    return {slot < 0 ? -1 : static_cast<int>(expected_[i]), slot};
  }
  if (!may_read_ahead_) return {-1, -1};
  const std::pair<int, int> ahead = read_ahead();
  may_read_ahead_ = ahead.first >= 0;
  return ahead;
}

// Free slots are filled; otherwise only what a domain that came into use has takes the place of what one that left it
// has: every other guess would keep the file busy when the next token needs it.
std::pair<int, int> Residency::read_ahead() const {
  int nearest = -1;
  double nearest_distance = 0;
  for (size_t i = 0; i < components_.size(); ++i) {
    if (components_[i].slot >= 0 || !components_[i].is_allowed) continue;
    const double its_distance = distance(i);
    if (nearest < 0 || its_distance < nearest_distance) nearest = static_cast<int>(i), nearest_distance = its_distance;
  }
  const int slot = nearest < 0 ? -1 : slot_for(static_cast<size_t>(nearest), false);
  if (slot < 0) return {-1, -1};
  const int content = content_[static_cast<size_t>(slot)];
  if (content >= 0 && (!is_active(static_cast<size_t>(nearest)) || is_active(static_cast<size_t>(content))))
    return {-1, -1};
  return {nearest, slot};
}

void Residency::read(size_t component, int slot, std::unique_lock<std::mutex>& lock) {
  Component& c = components_[component];
  int& content = content_[static_cast<size_t>(slot)];
  if (content >= 0) components_[static_cast<size_t>(content)].slot = -1;
  content = static_cast<int>(component);
  c.slot = slot;
  c.is_reading = true;
  const bool is_ahead = !std::binary_search(expected_.begin(), expected_.end(), component);
  const int64_t bytes = c.range.end - c.range.begin;
  lock.unlock();
  std::exception_ptr failure;
  try {
    file_.read(c.range.begin, bytes, slots_.data() + slot * slot_bytes_);
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  c.is_reading = false;
  if (failure) {
    failure_ = failure;
    c.slot = content = -1;
    return;
  }
  ++statistics_.reads;
  statistics_.reads_ahead += is_ahead;
  ++window_reads_;
  statistics_.bytes_read += bytes;
}

void Residency::serve() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const auto [component, slot] = failure_ ? std::pair(-1, -1) : next_read();
    if (component < 0) {
      reader_.wait(lock);
      continue;
    }
    read(static_cast<size_t>(component), slot, lock);
    taker_.notify_one();
  }
}

std::vector<const std::byte*> Residency::take(size_t most) {
  std::unique_lock lock(mutex_);
  TESSERA_CHECK(taken_ < expected_.size(), "no component is expected");
  const size_t next = expected_[taken_];
  if (is_there(next)) {
    ++statistics_.ready;
  } else {
    const double started = now_s();
    if (paging_ == Paging::kPlainLru) {
      read(next, least_recently_used(), lock);
    } else {
      taker_.wait(lock, [&] { return is_there(next) || failure_; });
    }
    statistics_.wait_seconds += now_s() - started;
    if (failure_) std::rethrow_exception(failure_);
  }
  // Half of the slots at most, so that others can be read meanwhile.
  most = std::min(most, std::max<size_t>(1, content_.size() / 2));
  std::vector<const std::byte*> at;
  while (at.size() < most && taken_ < expected_.size() && is_there(expected_[taken_])) {
    Component& c = components_[expected_[taken_++]];
    if (!at.empty()) ++statistics_.ready;
    ++statistics_.uses;
    count_for_ghost(c);
    c.last_use = clock_++;
    c.is_held = true;
    at.push_back(slots_.data() + c.slot * slot_bytes_);
  }
  return at;
}

void Residency::release() {
  {
    const std::lock_guard lock(mutex_);
    for (; released_ < taken_; ++released_) components_[expected_[released_]].is_held = false;
  }
  reader_.notify_one();
}

// The contents that plain LRU would have, without the bytes. When it would have read less in a window than was read,
// the next window evicts like it; the one after that tries the route again.
void Residency::count_for_ghost(Component& component) {
  if (!component.is_in_ghost) {
    ++ghost_reads_;
    if (ghost_size_ == static_cast<int64_t>(content_.size())) {
      Component* oldest = nullptr;
      for (Component& c : components_) {
        if (c.is_in_ghost && (!oldest || c.last_use < oldest->last_use)) oldest = &c;
      }
      oldest->is_in_ghost = false;
      --ghost_size_;
    }
    component.is_in_ghost = true;
    ++ghost_size_;
  }
  if (++window_uses_ < kWindowUses) return;
  evicts_like_lru_ = !evicts_like_lru_ && ghost_reads_ < window_reads_;
  window_uses_ = window_reads_ = ghost_reads_ = 0;
}

ResidencyStatistics Residency::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

}  // namespace tessera::engine
