#include "data/trigram.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tessera {
namespace {

constexpr int kTokenBits = 21;
constexpr uint64_t kTokenMask = (1ull << kTokenBits) - 1;
constexpr size_t kMaxPending = 1 << 23;  // 64 MB of keys

uint64_t pair_key(uint64_t first, uint64_t second) { return first << kTokenBits | second; }

// Where `token` stands in the ascending followers[begin, end), -1: nowhere.
int64_t find_follower(const std::vector<int32_t>& followers, int64_t begin, int64_t end, int32_t token) {
  const auto first = followers.begin() + begin, last = followers.begin() + end;
  const auto at = std::lower_bound(first, last, token);
  return at != last && *at == token ? at - followers.begin() : -1;
}

size_t capped(uint32_t count) { return std::min<size_t>(count, 3); }

}  // namespace

TrigramCounts::TrigramCounts(int vocab_size, int32_t bos)
    : vocab_size_(vocab_size), bos_(bos), first_V_(static_cast<size_t>(vocab_size), 0) {
  TESSERA_CHECK(vocab_size > 0 && static_cast<uint64_t>(vocab_size) <= kTokenMask + 1,
                "a trigram's key has 21 bits a token");
  TESSERA_CHECK(bos >= 0 && bos < vocab_size, "bos isn't in the vocabulary");
}

void TrigramCounts::count(int32_t before_last, int32_t last, int32_t next) {
  const uint32_t size = static_cast<uint32_t>(vocab_size_);
  TESSERA_CHECK(static_cast<uint32_t>(next) < size && static_cast<uint32_t>(last) < size,
                "a token outside the vocabulary");
  ++num_tokens_;
  if (last == bos_) {
    ++first_V_[static_cast<size_t>(next)];
    return;
  }
  pending_.push_back(
      pair_key(pair_key(static_cast<uint64_t>(before_last), static_cast<uint64_t>(last)), static_cast<uint64_t>(next)));
  if (pending_.size() >= kMaxPending) merge_pending();
}

void TrigramCounts::add(std::span<const int32_t> piece) {
  TESSERA_CHECK(!piece.empty() && piece[0] == bos_, "a piece begins with bos");
  for (size_t i = 1; i < piece.size(); ++i) count(i >= 2 ? piece[i - 2] : -1, piece[i - 1], piece[i]);
}

void TrigramCounts::add(const Batch& batch) {
  const size_t num_tokens = static_cast<size_t>(batch.num_tokens);
  for (size_t i = 0; i < batch.inputs_RT.size(); ++i) {
    const bool starts = static_cast<size_t>(batch.starts_RT[i]) == i % num_tokens;
    TESSERA_CHECK(!starts || batch.inputs_RT[i] == bos_, "a piece begins with bos");
    count(starts ? -1 : batch.inputs_RT[i - 1], batch.inputs_RT[i], batch.targets_RT[i]);
  }
}

void TrigramCounts::merge_pending() {
  std::sort(pending_.begin(), pending_.end());
  std::vector<Entry> merged;
  merged.reserve(counted_.size() + pending_.size() / 2);
  auto old = counted_.begin();
  for (size_t i = 0; i < pending_.size();) {
    size_t end = i;
    while (end < pending_.size() && pending_[end] == pending_[i]) ++end;
    while (old != counted_.end() && old->key < pending_[i]) merged.push_back(*old++);
    uint32_t count = static_cast<uint32_t>(end - i);
    if (old != counted_.end() && old->key == pending_[i]) count += (old++)->count;
    merged.push_back({pending_[i], count});
    i = end;
  }
  merged.insert(merged.end(), old, counted_.end());
  counted_ = std::move(merged);
  pending_.clear();
}

Trigram::Discounts Trigram::discounts(const std::array<int64_t, 5>& num_with_count) {
  const auto n = [&](size_t count) { return static_cast<double>(num_with_count[count]); };
  const double y = n(1) / (n(1) + 2 * n(2));
  Discounts d{};
  for (size_t count = 1; count <= 3; ++count) {
    d[count] = static_cast<double>(count) - static_cast<double>(count + 1) * y * n(count + 1) / n(count);
    // Too little text for the estimate (a number is 0, or counts aren't Zipfian): KenLM's fallback.
    if (!(d[count] >= 0 && d[count] <= static_cast<double>(count))) return {0, 0.5, 1.0, 1.5};
  }
  return d;
}

Trigram::Trigram(TrigramCounts counts, int context_length)
    : vocab_size_(counts.vocab_size_), context_length_(context_length), bos_(counts.bos_) {
  TESSERA_CHECK(counts.num_tokens_ > 0, "a trigram needs text");
  counts.merge_pending();
  const std::vector<TrigramCounts::Entry> trigrams = std::move(counts.counted_);
  const size_t vocab = static_cast<size_t>(vocab_size_);

  // Bigrams: each different trigram's last two tokens; and the first tokens of pieces behind bos.
  std::vector<uint64_t> pairs;
  pairs.reserve(trigrams.size());
  for (const auto& t : trigrams) pairs.push_back(t.key & pair_key(kTokenMask, kTokenMask));
  std::sort(pairs.begin(), pairs.end());
  row2_.assign(vocab + 1, 0);
  size_t at = 0;
  for (size_t v = 0; v < vocab; ++v) {
    if (static_cast<int32_t>(v) == bos_) {
      for (size_t w = 0; w < vocab; ++w) {
        if (counts.first_V_[w] == 0) continue;
        next2_.push_back(static_cast<int32_t>(w));
        count2_.push_back(counts.first_V_[w]);
      }
    }
    while (at < pairs.size() && pairs[at] >> kTokenBits == v) {
      const size_t begin = at;
      while (at < pairs.size() && pairs[at] == pairs[begin]) ++at;
      next2_.push_back(static_cast<int32_t>(pairs[begin] & kTokenMask));
      count2_.push_back(static_cast<uint32_t>(at - begin));
    }
    row2_[v + 1] = static_cast<int64_t>(next2_.size());
  }
  TESSERA_CHECK(at == pairs.size(), "a bigram is left over");

  // Discounts, and level 1.
  std::array<int64_t, 5> with_count3{}, with_count2{}, with_count1{};
  std::vector<uint32_t> count1(vocab, 0);
  for (const auto& t : trigrams) ++with_count3[std::min<size_t>(t.count, 4)];
  for (size_t b = 0; b < next2_.size(); ++b) {
    ++with_count2[std::min<size_t>(count2_[b], 4)];
    ++count1[static_cast<size_t>(next2_[b])];
  }
  for (uint32_t count : count1) ++with_count1[std::min<size_t>(count, 4)];
  discounts3_ = discounts(with_count3);
  discounts2_ = discounts(with_count2);
  const Discounts discounts1 = discounts(with_count1);
  const double num_bigrams = static_cast<double>(next2_.size());
  double discounted = 0;
  for (uint32_t count : count1) discounted += discounts1[capped(count)];
  for (uint32_t count : count1) {
    unigram_V_.push_back((count - discounts1[capped(count)] + discounted / static_cast<double>(vocab)) / num_bigrams);
  }

  // What each context has in all, and gives to the level below.
  total2_.assign(vocab, 0);
  backoff2_.assign(vocab, 1);
  for (size_t v = 0; v < vocab; ++v) {
    double given = 0;
    for (int64_t b = row2_[v]; b < row2_[v + 1]; ++b) {
      total2_[v] += count2_[static_cast<size_t>(b)];
      given += discounts2_[capped(count2_[static_cast<size_t>(b)])];
    }
    if (total2_[v] > 0) backoff2_[v] = given / total2_[v];
  }
  next3_.reserve(trigrams.size());
  count3_.reserve(trigrams.size());
  row3_.push_back(0);
  size_t t = 0;
  for (size_t u = 0; u < vocab; ++u) {
    for (int64_t b = row2_[u]; b < row2_[u + 1]; ++b) {
      const uint64_t prefix = pair_key(u, static_cast<uint64_t>(next2_[static_cast<size_t>(b)]));
      double total = 0, given = 0;
      for (; t < trigrams.size() && trigrams[t].key >> kTokenBits == prefix; ++t) {
        next3_.push_back(static_cast<int32_t>(trigrams[t].key & kTokenMask));
        count3_.push_back(trigrams[t].count);
        total += trigrams[t].count;
        given += discounts3_[capped(trigrams[t].count)];
      }
      row3_.push_back(static_cast<int64_t>(next3_.size()));
      total3_.push_back(static_cast<float>(total));
      backoff3_.push_back(total > 0 ? static_cast<float>(given / total) : 1.0f);
    }
  }
  TESSERA_CHECK(t == trigrams.size(), "the first two tokens of a trigram were never seen as a bigram");
}

double Trigram::bigram(int32_t last, int32_t next) const {
  const size_t v = static_cast<size_t>(last);
  double p = backoff2_[v] * unigram_V_[static_cast<size_t>(next)];
  if (const int64_t b = find_follower(next2_, row2_[v], row2_[v + 1], next); b >= 0) {
    const uint32_t count = count2_[static_cast<size_t>(b)];
    p += (count - discounts2_[capped(count)]) / total2_[v];
  }
  return p;
}

double Trigram::probability(int32_t before_last, int32_t last, int32_t next) const {
  const uint32_t size = static_cast<uint32_t>(vocab_size_);
  TESSERA_CHECK(static_cast<uint32_t>(next) < size && static_cast<uint32_t>(last) < size,
                "a token outside the vocabulary");
  const double lower = bigram(last, next);
  if (last == bos_) return lower;
  TESSERA_CHECK(static_cast<uint32_t>(before_last) < size, "a token outside the vocabulary");
  const size_t u = static_cast<size_t>(before_last);
  const int64_t context = find_follower(next2_, row2_[u], row2_[u + 1], last);
  if (context < 0) return lower;
  const size_t b = static_cast<size_t>(context);
  double p = static_cast<double>(backoff3_[b]) * lower;
  if (const int64_t t = find_follower(next3_, row3_[b], row3_[b + 1], next); t >= 0) {
    const uint32_t count = count3_[static_cast<size_t>(t)];
    p += (count - discounts3_[capped(count)]) / static_cast<double>(total3_[b]);
  }
  return p;
}

std::vector<ScoredText> Trigram::score(std::span<const std::vector<int32_t>> texts, std::span<const int>,
                                       std::span<const Route>) {
  std::vector<ScoredText> scored(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<int32_t>& text = texts[i];
    for (size_t t = 0; t + 1 < text.size(); ++t) {
      const double p = probability(t ? text[t - 1] : bos_, text[t], text[t + 1]);
      scored[i].log_probs.push_back(static_cast<float>(std::log(p)));
    }
  }
  return scored;
}

}  // namespace tessera
