// Text that must be of a grammar: tokens that can't go on with it are no choice. The notation is llama.cpp's GBNF:
//
//   root  ::= "[" item ("," item)* "]"      # a comment
//   item  ::= [0-9]+ | "\"" [^"\n]* "\""
//
// literals and classes (escapes \n \r \t \\ \" \] \xNN \uNNNN), ".", groups, "|", and * + ? {m} {m,} {m,n}; a rule goes
// on over line ends inside a group or after "|". It matches bytes: a class becomes the UTF-8 sequences of its
// characters, so that a token may end within one.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/tokenizer.h"

namespace tessera::engine {

class Grammar {
 public:
  // Throws Error{kUsage} naming `what`, the line and what was expected: also for a rule that is missing, for left
  // recursion (the match would never end) and for more than a million symbols.
  static Grammar parse(std::string_view text, const std::string& what);
  // Any JSON value (RFC 8259), white space between its parts at most one character.
  static Grammar json();

  struct Symbol {
    int32_t rule = -1;          // of a call, or
    uint8_t low = 0, high = 0;  // the bytes [low, high]
  };
  using Alternative = std::vector<Symbol>;
  const std::vector<Alternative>& alternatives(int32_t rule) const { return rules_[static_cast<size_t>(rule)]; }
  int32_t root() const { return root_; }

 private:
  friend class GrammarParser;
  std::vector<std::vector<Alternative>> rules_;
  int32_t root_ = -1;
};

// A vocabulary in the order of its tokens' bytes, so that one walk tries every shared beginning once.
class SortedVocabulary {
 public:
  explicit SortedVocabulary(const Tokenizer& tokenizer);
  struct Entry {
    std::string bytes;  // special tokens have none and are left out
    int32_t token;
  };
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

// How far a text has come in a grammar: all the ways in which it may go on, each a stack of places in rules.
class GrammarState {
 public:
  explicit GrammarState(std::shared_ptr<const Grammar> grammar);

  bool accept(std::string_view bytes);  // false, and nothing changes: no text of the grammar goes on so
  bool is_complete() const;             // the text so far is one of the grammar's
  bool can_go_on() const;               // a longer one begins with it
  // -infinity for each token that can't come next. `ends`: the tokens that end a text, kept when it is complete.
  void mask(const SortedVocabulary& vocabulary, std::span<const int32_t> ends, std::span<float> logits_V);

 private:
  struct Place {  // the next symbol of an alternative; `parent` is where to go on when the alternative is done
    int32_t rule;
    uint32_t alternative, position;
    const Place* parent;
  };
  using Places = std::vector<const Place*>;  // each before bytes; nullptr: the text is complete

  const Grammar::Symbol* next(const Place& place) const;
  const Place* place(int32_t rule, size_t alternative, size_t position, const Place* parent);
  void go_on(const Place* from, std::set<const Place*>& seen, Places& out);
  Places after(const Places& places, uint8_t byte);

  std::shared_ptr<const Grammar> grammar_;
  std::map<std::tuple<int32_t, uint32_t, uint32_t, const Place*>, std::unique_ptr<Place>> known_;  // each one once
  Places places_;
};

}  // namespace tessera::engine
