#include "core/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>
#include <tuple>

#include "base/error.h"

namespace tessera {
namespace {

constexpr size_t kMaxShortPiece = 64;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const std::vector<Merge>& merges) : slots_(std::bit_ceil(2 * merges.size() + 2)) {
  shift_ = 64 - std::countr_zero(slots_.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    Slot& slot = slots_[slot_of(merge.left, merge.right)];
    TESSERA_CHECK(slot.rank == kNoRank, "a pair is merged twice");
    slot = {pair_key(merge.left, merge.right), static_cast<int32_t>(rank), merge.merged};
  }
}

size_t Bpe::slot_of(int32_t left, int32_t right) const {
  uint64_t pair = pair_key(left, right);
  size_t mask = slots_.size() - 1;
  size_t i = (pair * 0x9E3779B97F4A7C15u) >> shift_;  // Fibonacci hashing
  while (slots_[i].pair != pair && slots_[i].pair != UINT64_MAX) i = (i + 1) & mask;
  return i;
}

void Bpe::encode(std::span<const int32_t> piece, std::vector<int32_t>& tokens) const {
  piece.size() <= kMaxShortPiece ? encode_short(piece, tokens) : encode_long(piece, tokens);
}

void Bpe::encode_short(std::span<const int32_t> piece, std::vector<int32_t>& tokens) const {
  int32_t symbols[kMaxShortPiece];
  int32_t ranks[kMaxShortPiece];   // of the pair (i, i + 1)
  int32_t merged[kMaxShortPiece];  // what that pair becomes
  int count = static_cast<int>(piece.size());
  std::copy(piece.begin(), piece.end(), symbols);
  auto look_up = [&](int i) {
    if (i < 0 || i + 1 >= count) return;
    const Slot& slot = slots_[slot_of(symbols[i], symbols[i + 1])];
    ranks[i] = slot.rank;
    merged[i] = slot.merged;
  };
  for (int i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    int best = static_cast<int>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[best] == kNoRank) break;
    symbols[best] = merged[best];
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(ranks + best + 1, ranks + count - 1, ranks + best);
    std::copy(merged + best + 1, merged + count - 1, merged + best);
    --count;
    look_up(best - 1);
    look_up(best);
  }
  tokens.insert(tokens.end(), symbols, symbols + count);
}

void Bpe::encode_long(std::span<const int32_t> piece, std::vector<int32_t>& tokens) const {
  struct Symbol {
    int32_t token;  // -1: merged into the one before
    int32_t previous, next;
  };
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (int32_t token : piece) {
    auto i = static_cast<int32_t>(symbols.size());
    symbols.push_back({token, i - 1, i + 1});
  }
  symbols.back().next = -1;

  // Candidates stay in the queue when a neighbour's merge makes them stale; a stale one is seen by its pair.
  using Candidate = std::tuple<int32_t, int32_t, uint64_t>;  // rank, position of the left symbol, pair
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  auto add_candidate = [&](int32_t i) {
    if (i < 0 || symbols[i].next < 0) return;
    const Slot& slot = slots_[slot_of(symbols[i].token, symbols[symbols[i].next].token)];
    if (slot.rank != kNoRank) queue.emplace(slot.rank, i, slot.pair);
  };
  for (size_t i = 0; i < symbols.size(); ++i) add_candidate(static_cast<int32_t>(i));
  while (!queue.empty()) {
    auto [rank, i, pair] = queue.top();
    queue.pop();
    Symbol& left = symbols[i];
    if (left.token < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    if (pair_key(left.token, right.token) != pair) continue;
    left.token = slots_[slot_of(left.token, right.token)].merged;
    right.token = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = i;
    add_candidate(left.previous);
    add_candidate(i);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.token >= 0) tokens.push_back(symbol.token);
  }
}

}  // namespace tessera
