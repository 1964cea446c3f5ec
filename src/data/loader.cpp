#include "data/loader.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "core/config.h"
#include "data/splice.h"

namespace tessera {
namespace {

constexpr int kSectionRows = 8;
constexpr int64_t kRepeatTokens = 128;
constexpr uint64_t kShuffleStream = 1, kSpliceStream = 2;

// A stream of random numbers for each (purpose, a, b).
Rng make_rng(uint64_t seed, uint64_t purpose, uint64_t a, uint64_t b) {
  return Rng(seed, mix64(purpose ^ mix64(a ^ mix64(b))));
}

std::vector<double> mix_weights(const ShardSet& shards, const std::map<std::string, double>& mix) {
  const auto& domains = shards.domains();
  std::vector<double> weights(domains.size(), 0.0);
  for (const auto& [name, weight] : mix) {
    const auto found = std::find(domains.begin(), domains.end(), name);
    if (found == domains.end()) {
      std::string known;
      for (const auto& domain : domains) known += (known.empty() ? "" : ", ") + domain;
      throw Error(ErrorCode::kConfig, "the mix names the domain \"" + name + "\", which the data set lacks",
                  "its domains are: " + known + "; --data.mix='{}' takes each as there is of it");
    }
    if (!std::isfinite(weight) || weight < 0) {
      throw Error(ErrorCode::kConfig, "the mix gives \"" + name + "\" the weight " + std::to_string(weight),
                  "weights are 0 or more");
    }
    const auto domain = static_cast<int>(found - domains.begin());
    if (weight > 0 && shards.num_documents(domain) == 0) {
      throw Error(ErrorCode::kData, "the domain \"" + name + "\" has no documents", "take it out of the mix");
    }
    weights[static_cast<size_t>(domain)] = weight;
  }
  if (mix.empty()) {
    for (size_t d = 0; d < weights.size(); ++d)
      weights[d] = static_cast<double>(shards.num_tokens(static_cast<int>(d)));
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!(sum > 0)) {
    if (mix.empty()) throw Error(ErrorCode::kData, "the data set has no documents");
    throw Error(ErrorCode::kConfig, "the weights of the mix sum to 0", "give one domain a weight above 0");
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace

LoaderOptions loader_options(const Config& config) {
  return {.context_length = config.model.trunk.context_length,
          .mix = config.data.mix,
          .splice_share = config.data.splice_share,
          .repeat_share = config.data.repeat_share,
          .seed = config.train.seed};
}

Loader::Loader(const ShardSet& shards, const LoaderOptions& options)
    : shards_(shards), options_(options), weights_(mix_weights(shards, options.mix)) {
  if (options_.context_length < 2) throw Error(ErrorCode::kConfig, "context_length must be at least 2");
  if (!(options_.splice_share >= 0 && options_.splice_share <= 1)) {
    throw Error(ErrorCode::kConfig, "splice_share must be from 0 to 1, found " + std::to_string(options_.splice_share));
  }
  if (!(options_.repeat_share >= 0 && options_.repeat_share <= 1)) {
    throw Error(ErrorCode::kConfig, "repeat_share must be from 0 to 1, found " + std::to_string(options_.repeat_share));
  }
  served_tokens_.assign(weights_.size(), 0);
  streams_.resize(weights_.size() + 1);
  for (size_t d = 0; d < weights_.size(); ++d) shuffle(static_cast<int>(d));
}

// Fills the stream's order for its epoch.
void Loader::shuffle(int domain) {
  Stream& stream = streams_[static_cast<size_t>(domain)];
  stream.order.clear();
  const int64_t section = static_cast<int64_t>(kSectionRows) * options_.context_length;
  for (int64_t document = 0; document < shards_.num_documents(domain); ++document) {
    const int64_t length = shards_.document_tokens(domain, document);
    for (int64_t begin = 0; begin < length; begin += section) {
      stream.order.push_back({domain, document, begin, std::min(section, length - begin)});
    }
  }
  Rng rng = make_rng(options_.seed, kShuffleStream, static_cast<uint64_t>(domain), static_cast<uint64_t>(stream.epoch));
  for (size_t i = stream.order.size(); i > 1; --i) std::swap(stream.order[i - 1], stream.order[rng.below(i)]);
}

// The pieces of a splice are drawn at random, beside the epochs: each domain's own stream still shows every document
// once.
std::vector<Loader::Part> Loader::draw_splice(int64_t number) const {
  Rng rng = make_rng(options_.seed, kSpliceStream, static_cast<uint64_t>(number), 0);
  const size_t num_pieces = static_cast<size_t>(splice_pieces(rng));
  std::vector<Part> parts;
  // A data set of a few documents may not have enough different ones: the attempts are bounded.
  for (int attempt = 0; attempt < 64 && parts.size() < num_pieces; ++attempt) {
    double left = rng.uniform();
    int domain = -1;
    for (size_t d = 0; d < weights_.size() && left >= 0; ++d) {
      if (weights_[d] == 0) continue;
      domain = static_cast<int>(d);
      left -= weights_[d];
    }
    Part part{.domain = domain,
              .document = static_cast<int64_t>(rng.below(static_cast<uint64_t>(shards_.num_documents(domain))))};
    const int64_t length = shards_.document_tokens(domain, part.document);
    part.count = std::min(splice_piece_tokens(rng), length);
    part.begin = static_cast<int64_t>(rng.below(static_cast<uint64_t>(length - part.count + 1)));
    const bool taken = std::any_of(parts.begin(), parts.end(), [&](const Part& other) {
      return other.domain == part.domain && other.document == part.document;
    });
    if (!taken) parts.push_back(part);
  }
  if (options_.repeat_share > 0 && rng.uniform() < options_.repeat_share) {
    const size_t from = static_cast<size_t>(rng.below(parts.size()));
    Part again = parts[from];
    again.count = std::min(again.count, kRepeatTokens);
    const size_t after = from + 1 + static_cast<size_t>(rng.below(parts.size() - from));
    parts.insert(parts.begin() + static_cast<int64_t>(after), again);
  }
  return parts;
}

// Reads the parts' tokens, and the token after them: the next of the document, or bos where it ends (a piece of a
// splice ends like a document).
void Loader::open(Stream& stream, std::vector<Part> parts) const {
  stream.open = std::move(parts);
  stream.tokens.clear();
  stream.labels.clear();
  stream.offset = 0;
  for (const Part& part : stream.open) {
    const size_t at = stream.tokens.size();
    stream.tokens.resize(at + static_cast<size_t>(part.count));
    shards_.read(part.domain, part.document, part.begin, part.count, stream.tokens.data() + at);
    stream.labels.resize(stream.tokens.size(), part.domain);
  }
  int32_t following = shards_.bos();
  const Part& last = stream.open.back();
  const bool is_section = &stream != &streams_.back();
  if (is_section && last.begin + last.count < shards_.document_tokens(last.domain, last.document)) {
    shards_.read(last.domain, last.document, last.begin + last.count, 1, &following);
  }
  stream.tokens.push_back(following);
}

// The stream furthest below its share of the tokens served, with something open to pack.
Loader::Stream& Loader::choose_stream() {
  const auto total = static_cast<double>(std::accumulate(served_tokens_.begin(), served_tokens_.end(), int64_t{0}));
  if (static_cast<double>(spliced_tokens_) < options_.splice_share * total) {
    Stream& splices = streams_.back();
    if (splices.offset == splices.labels.size()) open(splices, draw_splice(splices.drawn++));
    return splices;
  }
  size_t domain = 0;
  double furthest = -INFINITY;
  for (size_t d = 0; d < weights_.size(); ++d) {
    const double below = weights_[d] * total - static_cast<double>(served_tokens_[d]);
    if (weights_[d] > 0 && below > furthest) {
      furthest = below;
      domain = d;
    }
  }
  Stream& stream = streams_[domain];
  if (stream.offset == stream.labels.size()) {
    if (stream.drawn == static_cast<int64_t>(stream.order.size())) {
      ++stream.epoch;
      stream.drawn = 0;
      shuffle(static_cast<int>(domain));
    }
    open(stream, {stream.order[static_cast<size_t>(stream.drawn++)]});
  }
  return stream;
}

Batch Loader::next(int num_rows) {
  const int T = options_.context_length;
  Batch batch;
  batch.num_rows = num_rows;
  batch.num_tokens = T;
  const auto size = static_cast<size_t>(num_rows) * static_cast<size_t>(T);
  for (auto* field : {&batch.inputs_RT, &batch.targets_RT, &batch.starts_RT, &batch.domains_RT}) field->reserve(size);
  const auto put = [&](int32_t input, int32_t target, int start, int32_t domain) {
    batch.inputs_RT.push_back(input);
    batch.targets_RT.push_back(target);
    batch.starts_RT.push_back(start);
    batch.domains_RT.push_back(domain);
  };
  for (int row = 0; row < num_rows; ++row) {
    for (int t = 0; t < T;) {
      Stream& stream = choose_stream();
      const int start = t++;
      put(shards_.bos(), stream.tokens[stream.offset], start, stream.labels[stream.offset]);
      ++batch.num_documents;
      for (; t < T && stream.offset < stream.labels.size(); ++t, ++stream.offset) {
        const int32_t domain = stream.labels[stream.offset];
        put(stream.tokens[stream.offset], stream.tokens[stream.offset + 1], start, domain);
        ++served_tokens_[static_cast<size_t>(domain)];
        if (&stream == &streams_.back()) ++spliced_tokens_;
      }
    }
  }
  return batch;
}

std::vector<double> Loader::epochs() const {
  std::vector<double> epochs;
  for (size_t d = 0; d < weights_.size(); ++d) {
    const int64_t num_tokens = shards_.num_tokens(static_cast<int>(d));
    epochs.push_back(num_tokens ? static_cast<double>(served_tokens_[d]) / static_cast<double>(num_tokens) : 0.0);
  }
  return epochs;
}

Json Loader::state() const {
  Json streams = Json::array();
  for (const Stream& stream : streams_) {
    Json open = Json::array();
    for (const Part& part : stream.open) open.push_back({part.domain, part.document, part.begin, part.count});
    streams.push_back({{"epoch", stream.epoch}, {"drawn", stream.drawn}, {"open", open}, {"offset", stream.offset}});
  }
  return {{"data_hash", shards_.hash()},     {"context_length", options_.context_length}, {"seed", options_.seed},
          {"served_tokens", served_tokens_}, {"spliced_tokens", spliced_tokens_},         {"streams", streams}};
}

void Loader::set_state(const Json& state) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw Error(ErrorCode::kData, "the data position does not fit: " + what, "start the run anew");
  };
  try {
    require(state.at("data_hash") == shards_.hash(), "it was saved with another data set");
    require(state.at("context_length") == options_.context_length, "it was saved with another context_length");
    require(state.at("seed") == options_.seed, "it was saved with another seed");
    auto served = state.at("served_tokens").get<std::vector<int64_t>>();
    require(served.size() == served_tokens_.size(), "number of domains");
    const Json& saved = state.at("streams");
    require(saved.size() == streams_.size(), "number of streams");
    for (size_t i = 0; i < streams_.size(); ++i) {
      Stream& stream = streams_[i];
      stream.epoch = saved[i].at("epoch").get<int64_t>();
      stream.drawn = saved[i].at("drawn").get<int64_t>();
      const bool is_domain = i + 1 < streams_.size();
      if (is_domain) shuffle(static_cast<int>(i));
      require(stream.epoch >= 0 && stream.drawn >= 0, "negative count");
      require(!is_domain || stream.drawn <= static_cast<int64_t>(stream.order.size()), "documents drawn");
      std::vector<Part> parts;
      for (const Json& part : saved[i].at("open")) {
        parts.push_back(
            {part.at(0).get<int>(), part.at(1).get<int64_t>(), part.at(2).get<int64_t>(), part.at(3).get<int64_t>()});
        const auto [domain, document, begin, count] = parts.back();
        require(domain >= 0 && domain < static_cast<int>(served.size()) && document >= 0 &&
                    document < shards_.num_documents(domain) && begin >= 0 && count > 0 &&
                    count <= shards_.document_tokens(domain, document) &&
                    begin <= shards_.document_tokens(domain, document) - count,
                "an open document lies outside the data set");
      }
      const auto offset = saved[i].at("offset").get<size_t>();
      stream.labels.clear();
      if (!parts.empty()) open(stream, std::move(parts));
      require(offset <= stream.labels.size(), "offset in the open document");
      stream.offset = offset;
    }
    served_tokens_ = std::move(served);
    spliced_tokens_ = state.at("spliced_tokens").get<int64_t>();
  } catch (const Json::exception& e) {
    require(false, e.what());
  }
}

}  // namespace tessera
