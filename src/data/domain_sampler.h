// Labelled texts for level 1: each domain alike, each source of a domain alike, so that the router learns the domain
// and not the one large project in it. Whole sources are kept apart, for early stopping and calibration.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/rng.h"
#include "data/shards.h"

namespace tessera {

struct LabelledText {
  std::vector<int32_t> tokens;  // a bos first
  std::vector<int32_t> labels;  // of each token; the bos has the next one's
};

class DomainSampler {
 public:
  // `labels` [data domains]: class of each domain of the data set, -1: not used. With `hold_out`, the sources of
  // calibration_sources() are the other part: draw(calibration) draws from them alone, otherwise never.
  // Throws Error{kData} when a class has no documents, or there are fewer than two classes.
  DomainSampler(const ShardSet& shards, std::vector<int> labels, bool hold_out);

  // A text of at most `length` tokens, the bos included: a document from its start or from anywhere in it, or, with
  // probability splice_share, 2-4 pieces of 32-400 tokens of documents of any class, cut anywhere.
  LabelledText draw(Rng& rng, int length, double splice_share, bool calibration = false) const;

  int num_classes() const { return static_cast<int>(train_.size()); }
  // One source in six of each class that has at least four, the smaller ones first; of a class with fewer: none, and
  // has_calibration() is false.
  const std::vector<std::string>& calibration_sources() const { return calibration_names_; }
  bool has_calibration() const { return has_calibration_; }

 private:
  struct Place {
    int domain;
    int64_t document;
  };
  using Sources = std::vector<std::vector<Place>>;  // documents of each source
  // Appends a piece of at most `length` tokens.
  void append(Rng& rng, int64_t length, bool calibration, bool from_start, LabelledText& text) const;

  const ShardSet& shards_;
  std::vector<Sources> train_, calibration_;  // by class
  std::vector<std::string> calibration_names_;
  bool has_calibration_ = false;
};

}  // namespace tessera
