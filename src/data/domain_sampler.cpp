#include "data/domain_sampler.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "data/splice.h"

namespace tessera {
namespace {

constexpr size_t kSourcesAHeldOutOne = 6, kFewestSources = 4;

}  // namespace

DomainSampler::DomainSampler(const ShardSet& shards, std::vector<int> labels, bool hold_out) : shards_(shards) {
  const int num_classes = labels.empty() ? 0 : *std::max_element(labels.begin(), labels.end()) + 1;
  if (num_classes < 2) {
    throw Error(ErrorCode::kData,
                "level 1 needs documents of two domains at least, the data has those of " + std::to_string(num_classes),
                "with one domain set model.domain_router.kind=none: there is nothing to choose");
  }
  train_.resize(static_cast<size_t>(num_classes));
  calibration_.resize(train_.size());
  has_calibration_ = hold_out;
  for (int label = 0; label < num_classes; ++label) {
    struct Source {
      int64_t tokens = 0;
      std::vector<Place> documents = {};
    };
    std::map<int, Source> by_source;
    for (size_t d = 0; d < labels.size(); ++d) {
      if (labels[d] != label) continue;
      const int domain = static_cast<int>(d);
      for (int64_t i = 0; i < shards.num_documents(domain); ++i) {
        Source& source = by_source[shards.document_source(domain, i)];
        source.tokens += shards.document_tokens(domain, i);
        source.documents.push_back({domain, i});
      }
    }
    if (by_source.empty())
      throw Error(ErrorCode::kData, "a domain that level 1 chooses among has no documents in the data");
    std::vector<std::pair<int64_t, int>> by_size;
    for (const auto& [id, source] : by_source) by_size.push_back({source.tokens, id});
    std::sort(by_size.begin(), by_size.end());
    size_t num_held_out = 0;
    if (hold_out && by_source.size() >= kFewestSources)
      num_held_out = (by_source.size() + kSourcesAHeldOutOne - 1) / kSourcesAHeldOutOne;
    if (num_held_out == 0) has_calibration_ = false;
    // The smaller half, every other one: the smallest alone would be odd ones.
    std::vector<int> held_out;
    for (size_t i = 1; held_out.size() < num_held_out; i += 2) held_out.push_back(by_size[i].second);
    for (auto& [id, source] : by_source) {
      const bool held = std::find(held_out.begin(), held_out.end(), id) != held_out.end();
      if (held) calibration_names_.push_back(shards.sources().at(static_cast<size_t>(id)));
      (held ? calibration_ : train_)[static_cast<size_t>(label)].push_back(std::move(source.documents));
    }
  }
}

void DomainSampler::append(Rng& rng, int64_t length, bool calibration, bool from_start, LabelledText& text) const {
  const std::vector<Sources>& classes = calibration ? calibration_ : train_;
  const size_t label = rng.below(classes.size());
  const Sources& sources = classes[label];
  const std::vector<Place>& documents = sources[rng.below(sources.size())];
  const Place& place = documents[rng.below(documents.size())];
  const int64_t all = shards_.document_tokens(place.domain, place.document);
  const int64_t count = std::min(length, all);
  const int64_t begin = from_start ? 0 : static_cast<int64_t>(rng.below(static_cast<uint64_t>(all - count + 1)));
  const size_t at = text.tokens.size();
  text.tokens.resize(at + static_cast<size_t>(count));
  shards_.read(place.domain, place.document, begin, count, text.tokens.data() + at);
  text.labels.resize(text.tokens.size(), static_cast<int32_t>(label));
}

LabelledText DomainSampler::draw(Rng& rng, int length, double splice_share, bool calibration) const {
  TESSERA_CHECK(!calibration || has_calibration_, "no source was held out");
  LabelledText text{{shards_.bos()}, {0}};
  if (rng.uniform() >= splice_share) {
    append(rng, length - 1, calibration, rng.uniform() < 0.5, text);
  } else {
    const int64_t pieces = splice_pieces(rng);
    for (int64_t i = 0; i < pieces; ++i) append(rng, splice_piece_tokens(rng), calibration, false, text);
    text.tokens.resize(std::min(text.tokens.size(), static_cast<size_t>(length)));
    text.labels.resize(text.tokens.size());
  }
  text.labels[0] = text.labels[std::min<size_t>(1, text.labels.size() - 1)];
  return text;
}

}  // namespace tessera
