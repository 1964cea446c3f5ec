#include "engine/grammar.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace tessera::engine {

// Ways at a time: a grammar that is so ambiguous would take for ever.
constexpr size_t kMostPlaces = 10'000;

SortedVocabulary::SortedVocabulary(const Tokenizer& tokenizer) {
  for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
    std::string bytes(tokenizer.is_special(token) ? "" : tokenizer.token_bytes(token));
    if (!bytes.empty()) entries_.push_back({std::move(bytes), token});
  }
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.bytes < b.bytes; });
}

GrammarState::GrammarState(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  std::set<const Place*> seen;
  for (size_t a = 0; a < grammar_->alternatives(grammar_->root()).size(); ++a)
    go_on(place(grammar_->root(), a, 0, nullptr), seen, places_);
}

const Grammar::Symbol* GrammarState::next(const Place& p) const {
  return &grammar_->alternatives(p.rule)[p.alternative][p.position];
}

// The place before a symbol; at the end of an alternative there is nothing left to do there, so it is the parent: this
// keeps the stack of "any number of" flat.
const GrammarState::Place* GrammarState::place(int32_t rule, size_t alternative, size_t position, const Place* parent) {
  if (position == grammar_->alternatives(rule)[alternative].size()) return parent;
  const auto a = static_cast<uint32_t>(alternative), p = static_cast<uint32_t>(position);
  std::unique_ptr<Place>& known = known_[{rule, a, p, parent}];
  if (!known) known = std::make_unique<Place>(Place{rule, a, p, parent});
  return known.get();
}

// Into the rules that are called, until bytes come next. `seen` keeps it from going any way twice, so it ends.
void GrammarState::go_on(const Place* from, std::set<const Place*>& seen, Places& out) {
  std::vector<const Place*> work = {from};
  while (!work.empty()) {
    const Place* p = work.back();
    work.pop_back();
    if (!seen.insert(p).second) continue;
    if (seen.size() > kMostPlaces) {
      throw Error(ErrorCode::kUsage, "the grammar is too ambiguous: a text can go on in more than 10,000 ways",
                  "rewrite repetitions that match the same text");
    }
    if (p == nullptr || next(*p)->rule < 0) {
      out.push_back(p);
      continue;
    }
    const int32_t rule = next(*p)->rule;
    const Place* then = place(p->rule, p->alternative, p->position + 1, p->parent);
    for (size_t a = 0; a < grammar_->alternatives(rule).size(); ++a) work.push_back(place(rule, a, 0, then));
  }
}

GrammarState::Places GrammarState::after(const Places& places, uint8_t byte) {
  Places out;
  std::set<const Place*> seen;
  for (const Place* p : places) {
    if (p == nullptr || byte < next(*p)->low || byte > next(*p)->high) continue;
    go_on(place(p->rule, p->alternative, p->position + 1, p->parent), seen, out);
  }
  return out;
}

bool GrammarState::accept(std::string_view bytes) {
  Places places = places_;
  for (char c : bytes) {
    places = after(places, static_cast<uint8_t>(c));
    if (places.empty()) return false;
  }
  places_ = std::move(places);
  return true;
}

bool GrammarState::is_complete() const { return std::find(places_.begin(), places_.end(), nullptr) != places_.end(); }

bool GrammarState::can_go_on() const {
  return std::any_of(places_.begin(), places_.end(), [](const Place* p) { return p != nullptr; });
}

void GrammarState::mask(const SortedVocabulary& vocabulary, std::span<const int32_t> ends, std::span<float> logits) {
  const std::vector<float> before(logits.begin(), logits.end());
  std::fill(logits.begin(), logits.end(), -std::numeric_limits<float>::infinity());
  const auto keep = [&](int32_t token) {
    if (token >= 0 && static_cast<size_t>(token) < logits.size())
      logits[static_cast<size_t>(token)] = before[static_cast<size_t>(token)];
  };
  if (is_complete()) std::for_each(ends.begin(), ends.end(), keep);
  std::vector<Places> path = {places_};  // path[n]: after n bytes of the entry before
  std::string_view last;
  for (const SortedVocabulary::Entry& entry : vocabulary.entries()) {
    const std::string_view bytes = entry.bytes;
    const auto shared =
        static_cast<size_t>(std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end()).first - last.begin());
    if (path.size() > shared + 1) path.resize(shared + 1);
    last = bytes;
    if (path.size() <= shared) continue;  // it fails within what it shares with the entry before
    while (path.size() <= bytes.size()) {
      Places places = after(path.back(), static_cast<uint8_t>(bytes[path.size() - 1]));
      if (places.empty()) break;
      path.push_back(std::move(places));
    }
    if (path.size() == bytes.size() + 1) keep(entry.token);
  }
}

}  // namespace tessera::engine
