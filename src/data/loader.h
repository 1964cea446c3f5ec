// Training batches: documents drawn by domain in the stated mix, spliced now and then, packed into rows.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/shards.h"

namespace tessera {

struct Config;

// R rows of T tokens. A row is a sequence of document pieces; each piece begins with the start token (bos), so a piece
// cut by the end of a row goes on in the next row behind a bos of its own. The target of a document's last token is the
// bos of what follows: the end of a text is learnt. Row-major, [R * T].
struct Batch {
  int num_rows = 0, num_tokens = 0;
  std::vector<int32_t> inputs_RT;
  std::vector<int32_t> targets_RT;
  std::vector<int32_t> starts_RT;   // index in the row of the bos of the token's piece: position = t - start
  std::vector<int32_t> domains_RT;  // label of the token (a bos has its piece's first token's): index into the data
                                    // set's domain names; in a spliced document it changes from piece to piece
  int64_t num_documents = 0;        // pieces that begin in this batch
};

struct LoaderOptions {
  int context_length = 512;                // T, at least 2
  std::map<std::string, double> mix = {};  // weight by domain, in tokens; empty: in proportion to the data
  double splice_share = 0.1;  // share of tokens in spliced documents: 2-4 pieces of 32-400 tokens from different
                              // documents, domains drawn by the mix, cut at random places, no bos inside
  double repeat_share = 0;    // share of the spliced documents in which one piece, up to 128 tokens of it, comes again
                              // at a later place: what a model must copy from its context to foresee
  uint64_t seed = 1;
};
LoaderOptions loader_options(const Config& config);

// Deterministic: the batches are a function of the data, the options and the state. The state is small and exact: a
// loader that is given it goes on with the very next token.
//
// Each domain is a stream: its documents in an order shuffled anew each epoch. A document longer than 8 rows counts as
// several sections, shuffled apart, so that a book doesn't fill the batches of a whole hour. The spliced documents are
// one more stream. A piece that ends, or a row, is followed by the stream that is furthest below its share of the
// tokens; so the mix holds within a batch or two, not only on the average.
class Loader {
 public:
  // Throws Error{kData} when a domain of the mix has no documents; Error{kConfig} for an unknown domain in the mix.
  Loader(const ShardSet& shards, const LoaderOptions& options);
  Batch next(int num_rows);
  Json state() const;
  void set_state(const Json& state);   // throws Error{kData} when it doesn't fit the data set or the options
  std::vector<double> epochs() const;  // passes over each domain so far, in tokens served (spliced ones included)

 private:
  struct Part {  // tokens [begin, begin + count) of a document
    int domain = 0;
    int64_t document = 0, begin = 0, count = 0;
  };
  struct Stream {                  // of one domain, or of the spliced documents
    int64_t epoch = 0, drawn = 0;  // drawn: in this epoch (domain), ever (splices)
    std::vector<Part> order;       // of this epoch; empty for splices
    std::vector<Part> open;        // what is being packed: one part, or those of a splice
    std::vector<int32_t> tokens;   // its tokens, without bos, and the one that follows
    std::vector<int32_t> labels;   // the domain of each token
    size_t offset = 0;             // tokens packed so far
  };
  void shuffle(int domain);
  std::vector<Part> draw_splice(int64_t number) const;
  void open(Stream& stream, std::vector<Part> parts) const;
  Stream& choose_stream();

  const ShardSet& shards_;
  LoaderOptions options_;
  std::vector<double> weights_;         // by domain, sums to 1
  std::vector<Stream> streams_;         // by domain; the last one is of the spliced documents
  std::vector<int64_t> served_tokens_;  // by domain
  int64_t spliced_tokens_ = 0;
};

}  // namespace tessera
