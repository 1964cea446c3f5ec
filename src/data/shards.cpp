#include "data/shards.h"

#include <cstring>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "core/tokenizer.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

constexpr char kMagic[8] = {'T', 'S', 'R', 'S', 'H', 'A', 'R', 'D'};
constexpr uint32_t kVersion = 1;

struct Header {  // the first 64 bytes of a shard
  char magic[8];
  uint32_t version, token_width;
  uint64_t num_tokens, num_documents;
  char zeros[32];
};
static_assert(sizeof(Header) == 64);

uint32_t token_width(int vocab_size) { return vocab_size <= 1 << 16 ? 2 : 4; }
uint64_t padded(uint64_t size) { return (size + 7) / 8 * 8; }

template <typename T>
void append(std::string& bytes, const std::vector<T>& values) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// The set's hash covers everything that index.json says, the shards' hashes included.
std::string index_hash(Json index) {
  index.erase("hash");
  return hash_hex(index.dump());
}

}  // namespace

struct ShardWriter::State {
  fs::path folder;
  Json index;
  size_t num_domains, num_sources;
  int vocab_size;
  int64_t shard_tokens;
  uint32_t width;
  // The shard being written is built in memory, because its header comes first and its hash covers it whole.
  std::string bytes;
  std::vector<uint64_t> offsets;
  std::vector<uint16_t> domain_ids, source_ids;
  int64_t text_bytes;

  void begin_shard() {
    bytes.assign(sizeof(Header), '\0');
    offsets.assign(1, 0);
    domain_ids.clear();
    source_ids.clear();
    text_bytes = 0;
  }

  void end_shard() {
    if (domain_ids.empty()) return;
    Header header{};
    std::memcpy(header.magic, kMagic, sizeof kMagic);
    header.version = kVersion;
    header.token_width = width;
    header.num_tokens = offsets.back();
    header.num_documents = domain_ids.size();
    std::memcpy(bytes.data(), &header, sizeof header);
    bytes.resize(padded(bytes.size()), '\0');
    append(bytes, offsets);
    append(bytes, domain_ids);
    append(bytes, source_ids);
    char name[32];
    std::snprintf(name, sizeof name, "train-%05zu.bin", index["shards"].size());
    FileWriter file(folder / name);
    file.write(bytes);
    file.close();
    index["shards"].push_back({{"file", name},
                               {"tokens", header.num_tokens},
                               {"documents", header.num_documents},
                               {"bytes", text_bytes},
                               {"hash", hash_hex(bytes)}});
    begin_shard();
  }
};

ShardWriter::ShardWriter(fs::path folder, std::vector<std::string> domains, std::vector<std::string> sources,
                         int vocab_size, int32_t bos, std::string tokenizer_hash, int64_t shard_tokens)
    : state_(std::make_unique<State>()) {
  constexpr size_t kMaxIds = std::numeric_limits<uint16_t>::max();
  if (domains.size() > kMaxIds || sources.size() > kMaxIds) {
    throw Error(ErrorCode::kData,
                "a data set holds at most 65535 domains and 65535 sources, found " + std::to_string(domains.size()) +
                    " and " + std::to_string(sources.size()),
                "\"source\" names a collection, not a document");
  }
  TESSERA_CHECK(bos >= 0 && bos < vocab_size, "the start token lies outside the vocabulary");
  state_->folder = std::move(folder);
  state_->num_domains = domains.size();
  state_->num_sources = sources.size();
  state_->vocab_size = vocab_size;
  state_->shard_tokens = shard_tokens;
  state_->width = token_width(vocab_size);
  state_->index = {{"version", kVersion},      {"domains", domains}, {"sources", sources},
                   {"vocab_size", vocab_size}, {"bos", bos},         {"tokenizer_hash", tokenizer_hash},
                   {"shards", Json::array()}};
  state_->begin_shard();
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::add(const std::vector<int32_t>& tokens, int domain, int source, int64_t text_bytes) {
  State& s = *state_;
  TESSERA_CHECK(!tokens.empty(), "a document without tokens");
  TESSERA_CHECK(domain >= 0 && static_cast<size_t>(domain) < s.num_domains, "domain out of range");
  TESSERA_CHECK(source >= 0 && static_cast<size_t>(source) < s.num_sources, "source out of range");
  for (const int32_t token : tokens) {
    TESSERA_CHECK(token >= 0 && token < s.vocab_size, "token out of range");
    s.bytes.append(reinterpret_cast<const char*>(&token), s.width);  // little endian: the low bytes come first
  }
  s.offsets.push_back(s.offsets.back() + tokens.size());
  s.domain_ids.push_back(static_cast<uint16_t>(domain));
  s.source_ids.push_back(static_cast<uint16_t>(source));
  s.text_bytes += text_bytes;
  if (s.offsets.back() >= static_cast<uint64_t>(s.shard_tokens)) s.end_shard();
}

void ShardWriter::close() {
  state_->end_shard();
  state_->index["hash"] = index_hash(state_->index);
  write_json_file(state_->folder / "index.json", state_->index);
}

namespace {

[[noreturn]] void broken(const fs::path& path, const std::string& what) {
  throw Error(ErrorCode::kData, path.string() + " is broken: " + what,
              "build the data set again: ./tessera data build");
}

void expect_equal(const fs::path& path, const char* what, uint64_t expected, uint64_t found) {
  if (expected != found) {
    broken(path, std::string(what) + ": expected " + std::to_string(expected) + ", found " + std::to_string(found));
  }
}

// One mapped shard, checked: after construction every offset lies inside the file.
class Shard {
 public:
  Shard(const fs::path& path, uint64_t num_tokens, uint64_t num_documents, uint32_t width, size_t num_domains,
        size_t num_sources)
      : file_(path), num_documents_(num_documents), width_(width) {
    const uint64_t size = file_.bytes().size();
    if (size < sizeof(Header)) broken(path, "expected at least 64 bytes, found " + std::to_string(size));
    Header header;
    std::memcpy(&header, data(), sizeof header);
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) broken(path, "it does not begin with TSRSHARD");
    expect_equal(path, "version", kVersion, header.version);
    expect_equal(path, "token width", width, header.token_width);
    expect_equal(path, "tokens", num_tokens, header.num_tokens);
    expect_equal(path, "documents", num_documents, header.num_documents);
    // Counts above the file's length are refused first, so that the sums below can't overflow.
    if (num_tokens > size || num_documents >= size) {
      broken(path, std::to_string(num_tokens) + " tokens and " + std::to_string(num_documents) +
                       " documents don't fit into " + std::to_string(size) + " bytes");
    }
    const uint64_t offsets_at = sizeof(Header) + padded(num_tokens * width);
    const uint64_t domains_at = offsets_at + (num_documents + 1) * sizeof(uint64_t);
    const uint64_t sources_at = domains_at + num_documents * sizeof(uint16_t);
    expect_equal(path, "bytes", sources_at + num_documents * sizeof(uint16_t), size);
    offsets_ = reinterpret_cast<const uint64_t*>(data() + offsets_at);
    domain_ids_ = reinterpret_cast<const uint16_t*>(data() + domains_at);
    source_ids_ = reinterpret_cast<const uint16_t*>(data() + sources_at);
    expect_equal(path, "first offset", 0, offsets_[0]);
    expect_equal(path, "last offset", num_tokens, offsets_[num_documents]);
    for (uint64_t i = 0; i < num_documents; ++i) {
      if (offsets_[i] >= offsets_[i + 1] || offsets_[i + 1] > num_tokens) {
        broken(path, "document " + std::to_string(i) + " reaches from token " + std::to_string(offsets_[i]) + " to " +
                         std::to_string(offsets_[i + 1]) + " of " + std::to_string(num_tokens));
      }
      if (domain_ids_[i] >= num_domains) broken(path, "document " + std::to_string(i) + " has no known domain");
      if (source_ids_[i] >= num_sources) broken(path, "document " + std::to_string(i) + " has no known source");
    }
  }

  const fs::path& path() const { return file_.path(); }
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  uint64_t num_documents() const { return num_documents_; }
  int domain(uint64_t document) const { return domain_ids_[document]; }
  int source(uint64_t document) const { return source_ids_[document]; }
  int64_t length(uint64_t document) const { return static_cast<int64_t>(offsets_[document + 1] - offsets_[document]); }
  void read(uint64_t document, int64_t begin, int64_t count, int32_t* out) const {
    const char* from = data() + sizeof(Header) + (offsets_[document] + static_cast<uint64_t>(begin)) * width_;
    if (width_ == 4) {
      std::memcpy(out, from, static_cast<size_t>(count) * 4);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        uint16_t token;
        std::memcpy(&token, from + 2 * i, 2);
        out[i] = token;
      }
    }
  }

 private:
  const char* data() const { return reinterpret_cast<const char*>(file_.bytes().data()); }
  MappedFile file_;
  uint64_t num_documents_;
  uint32_t width_;
  const uint64_t* offsets_;
  const uint16_t *domain_ids_, *source_ids_;
};

}  // namespace

struct ShardSet::State {
  struct Place {
    uint32_t shard, document;
  };
  std::vector<std::string> domains, sources;
  int vocab_size;
  int32_t bos;
  std::string hash, tokenizer_hash;
  fs::path folder;
  std::vector<std::unique_ptr<Shard>> shards;
  std::vector<std::vector<Place>> documents;  // by domain
  std::vector<int64_t> num_tokens;            // by domain

  std::pair<const Shard&, uint32_t> find(int domain, int64_t index) const {
    const Place& place = documents.at(static_cast<size_t>(domain)).at(static_cast<size_t>(index));
    return {*shards[place.shard], place.document};
  }

  void load_index(const fs::path& path, const Json& index) {
    expect_equal(path, "version", kVersion, index.at("version").get<uint64_t>());
    domains = index.at("domains").get<std::vector<std::string>>();
    sources = index.at("sources").get<std::vector<std::string>>();
    if (std::set(domains.begin(), domains.end()).size() != domains.size()) broken(path, "a domain is named twice");
    const auto vocab = index.at("vocab_size").get<int64_t>(), start = index.at("bos").get<int64_t>();
    if (vocab < 1 || vocab > std::numeric_limits<int32_t>::max()) broken(path, "vocab_size " + std::to_string(vocab));
    if (start < 0 || start >= vocab) broken(path, "bos " + std::to_string(start) + " lies outside the vocabulary");
    vocab_size = static_cast<int>(vocab);
    bos = static_cast<int32_t>(start);
    hash = index.at("hash").get<std::string>();
    tokenizer_hash = index.at("tokenizer_hash").get<std::string>();
    if (hash != index_hash(index)) broken(path, "its hash does not match its content");
  }

  void load_shard(const fs::path& folder, const Json& entry, bool verify_hashes) {
    const fs::path name = entry.at("file").get<std::string>();
    if (name.empty() || name != name.filename()) broken(folder / "index.json", "shard name " + name.string());
    const auto tokens = entry.at("tokens").get<int64_t>(), count = entry.at("documents").get<int64_t>();
    if (tokens < 0 || count < 0 || count > std::numeric_limits<uint32_t>::max()) {
      broken(folder / name,
             "index.json gives " + std::to_string(tokens) + " tokens, " + std::to_string(count) + " documents");
    }
    auto shard =
        std::make_unique<Shard>(folder / name, tokens, count, token_width(vocab_size), domains.size(), sources.size());
    const auto expected = entry.at("hash").get<std::string>();
    if (verify_hashes) {
      if (const std::string found = hash_hex(shard->bytes()); found != expected) {
        broken(folder / name, "hash: expected " + expected + ", found " + found);
      }
    }
    for (uint32_t i = 0; i < shard->num_documents(); ++i) {
      const auto domain = static_cast<size_t>(shard->domain(i));
      documents[domain].push_back({static_cast<uint32_t>(shards.size()), i});
      num_tokens[domain] += shard->length(i);
    }
    shards.push_back(std::move(shard));
  }
};

ShardSet::ShardSet(const fs::path& folder, bool verify_hashes) : state_(std::make_unique<State>()) {
  const fs::path path = folder / "index.json";
  if (!fs::exists(path)) {
    throw Error(ErrorCode::kFile, folder.string() + " is no data set: it has no index.json",
                "./tessera data build INPUT --out " + folder.string());
  }
  const Json index = read_json_file(path);
  state_->folder = folder;
  try {
    state_->load_index(path, index);
    state_->documents.resize(state_->domains.size());
    state_->num_tokens.resize(state_->domains.size());
    for (const Json& entry : index.at("shards")) state_->load_shard(folder, entry, verify_hashes);
  } catch (const Json::exception& e) {
    broken(path, e.what());
  }
}

ShardSet::~ShardSet() = default;

const std::vector<std::string>& ShardSet::domains() const { return state_->domains; }
const std::vector<std::string>& ShardSet::sources() const { return state_->sources; }
int ShardSet::vocab_size() const { return state_->vocab_size; }
int32_t ShardSet::bos() const { return state_->bos; }
const std::string& ShardSet::hash() const { return state_->hash; }

Tokenizer ShardSet::tokenizer() const {
  const fs::path file = state_->folder / "tokenizer.json";
  Tokenizer tokenizer = Tokenizer::from_file(file);
  if (hash_hex(tokenizer.json()) != state_->tokenizer_hash)
    broken(file, "the shards' tokens were made with another tokenizer");
  return tokenizer;
}

int64_t ShardSet::num_documents(int domain) const {
  return static_cast<int64_t>(state_->documents.at(static_cast<size_t>(domain)).size());
}
int64_t ShardSet::num_tokens(int domain) const { return state_->num_tokens.at(static_cast<size_t>(domain)); }

int64_t ShardSet::document_tokens(int domain, int64_t index) const {
  const auto [shard, document] = state_->find(domain, index);
  return shard.length(document);
}

int ShardSet::document_source(int domain, int64_t index) const {
  const auto [shard, document] = state_->find(domain, index);
  return shard.source(document);
}

void ShardSet::read(int domain, int64_t index, int64_t begin, int64_t count, int32_t* out) const {
  const auto [shard, document] = state_->find(domain, index);
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin <= shard.length(document) - count, "read beyond the document");
  shard.read(document, begin, count, out);
  for (int64_t i = 0; i < count; ++i) {
    if (out[i] < 0 || out[i] >= state_->vocab_size) {
      broken(shard.path(), "token " + std::to_string(out[i]) + " of document " + std::to_string(document) +
                               " lies outside the vocabulary of " + std::to_string(state_->vocab_size));
    }
  }
}

}  // namespace tessera
