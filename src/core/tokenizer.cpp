#include "core/tokenizer.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "core/bpe.h"
#include "core/pre_tokenizer.h"
#include "core/tokenizer_file.h"
#include "core/unicode.h"

namespace tessera {
namespace {

// Positions in a piece are 32 bits wide.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Finds added tokens in a text: the leftmost, the longest of those that start there.
class AddedTokenMatcher {
 public:
  void add(const AddedToken& token, std::string text) {
    auto& entries = by_first_byte_[static_cast<unsigned char>(text[0])];
    entries.push_back({std::move(text), &token});
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.text.size() > b.text.size(); });
  }

  // Calls gap(text) and match(token) in the order of the text. Where a special token stands and isn't asked for, the
  // gap goes on; like `tokenizers`, nothing else is then looked for inside it.
  template <class Gap, class Match>
  void split(std::string_view text, bool parse_special, Gap&& gap, Match&& match) const {
    size_t gap_start = 0;
    for (size_t pos = 0; pos < text.size();) {
      const Entry* entry = entry_at(text, pos);
      if (!entry) {
        ++pos;
        continue;
      }
      if (parse_special || !entry->token->special) {
        if (pos > gap_start) gap(text.substr(gap_start, pos - gap_start));
        match(*entry->token);
        gap_start = pos + entry->text.size();
      }
      pos += entry->text.size();
    }
    if (gap_start < text.size()) gap(text.substr(gap_start));
  }

 private:
  struct Entry {
    std::string text;
    const AddedToken* token;
  };

  const Entry* entry_at(std::string_view text, size_t pos) const {
    for (const Entry& entry : by_first_byte_[static_cast<unsigned char>(text[pos])]) {
      if (text.substr(pos, entry.text.size()) == entry.text) return &entry;
    }
    return nullptr;
  }

  std::array<std::vector<Entry>, 256> by_first_byte_;  // longest first
};

// The tokens of recent short pieces, one cache line each. Texts repeat their words, so most pieces are found here.
struct CachedPiece {
  static constexpr size_t kMaxBytes = 18, kMaxTokens = 10;
  uint32_t owner = 0;  // the tokenizer's serial number; 0: empty
  uint8_t num_bytes = 0, num_tokens = 0;
  char bytes[kMaxBytes];
  int32_t tokens[kMaxTokens];
};
static_assert(sizeof(CachedPiece) == 64);
constexpr size_t kNumCachedPieces = 1 << 14;  // 1 MiB a thread

}  // namespace

struct Tokenizer::Impl {
  Impl(TokenizerFile file, std::string_view json)
      : json(json),
        pre_tokenizer(file.pre_tokenizer),
        nfc(file.nfc),
        token_bytes(std::move(file.token_bytes)),
        added_tokens(std::move(file.added_tokens)),
        is_special(token_bytes.size()),
        space_in_front(file.space_in_front),
        byte_tokens(file.byte_tokens),
        bpe(file.merges) {
    static std::atomic<uint32_t> num_tokenizers{0};
    serial = ++num_tokenizers;
    for (const AddedToken& token : added_tokens) {
      is_special[token.id] = token.special;
      if (token.normalized) {
        normalized_matcher.add(token, nfc ? to_nfc(token.text) : token.text);
      } else {
        raw_matcher.add(token, token.text);
      }
    }
    if (file.ignore_merges) {
      for (int32_t id : file.model_tokens) whole_pieces.emplace(token_bytes[id], id);
    }
    for (auto& [character, id] : file.character_tokens) character_tokens.emplace(std::move(character), id);
    for (const char* name : {"<s>", "<|endoftext|>", "<|begin_of_text|>", "<|bos|>"}) {
      for (const AddedToken& token : added_tokens) {
        if (token.text == name) bos = token.id;
      }
    }
  }

  void check_id(int32_t token) const {
    if (token < 0 || static_cast<size_t>(token) >= token_bytes.size())
      throw Error(ErrorCode::kData, "token " + std::to_string(token) + " isn't in the vocabulary of " +
                                        std::to_string(token_bytes.size()) + " tokens");
  }

  void encode_piece_uncached(std::string_view piece, std::vector<int32_t>& tokens) const {
    if (!whole_pieces.empty()) {
      if (auto found = whole_pieces.find(piece); found != whole_pieces.end()) {
        tokens.push_back(found->second);
        return;
      }
    }
    std::vector<int32_t> symbols;
    symbols.reserve(piece.size());
    if (pre_tokenizer == PreTokenizer::kLlama2) {
      for (size_t pos = 0, end; pos < piece.size(); pos = end) {
        end = pos + char_at(piece, pos).num_bytes;
        const auto found = character_tokens.find(std::string(piece.substr(pos, end - pos)));
        if (found != character_tokens.end()) {
          symbols.push_back(found->second);
        } else {
          for (size_t i = pos; i < end; ++i) append_byte(piece[i], symbols);
        }
      }
    } else {
      for (const char byte : piece) append_byte(byte, symbols);
    }
    bpe.encode(symbols, tokens);
  }

  void append_byte(char byte, std::vector<int32_t>& tokens) const {
    const int32_t token = byte_tokens[static_cast<unsigned char>(byte)];
    if (token >= 0) tokens.push_back(token);
  }

  // A text, or what stands between two added tokens of one, as SentencePiece has it.
  std::string with_space_in_front(std::string_view text, bool is_first) const {
    const bool has_space = text.starts_with(' ') || text.starts_with(kSpaceSign);
    const bool adds =
        space_in_front == SpaceInFront::kEvery || (space_in_front != SpaceInFront::kNone && !has_space &&
                                                   (is_first || space_in_front == SpaceInFront::kEveryMissing));
    return (adds ? " " : "") + with_spaces(text);
  }

  void encode_piece(std::string_view piece, std::vector<int32_t>& tokens) const {
    if (piece.size() > CachedPiece::kMaxBytes) return encode_piece_uncached(piece, tokens);
    thread_local std::vector<CachedPiece> cache(kNumCachedPieces);
    CachedPiece& cached = cache[XXH3_64bits(piece.data(), piece.size()) % kNumCachedPieces];
    if (cached.owner == serial && piece == std::string_view(cached.bytes, cached.num_bytes)) {
      tokens.insert(tokens.end(), cached.tokens, cached.tokens + cached.num_tokens);
      return;
    }
    size_t start = tokens.size();
    encode_piece_uncached(piece, tokens);
    size_t num_tokens = tokens.size() - start;
    if (num_tokens > CachedPiece::kMaxTokens) return;
    cached.owner = serial;
    cached.num_bytes = static_cast<uint8_t>(piece.size());
    cached.num_tokens = static_cast<uint8_t>(num_tokens);
    std::copy(piece.begin(), piece.end(), cached.bytes);
    std::copy(tokens.begin() + start, tokens.end(), cached.tokens);
  }

  // Text without added tokens.
  void encode_valid(std::string_view text, std::vector<int32_t>& tokens) const {
    for (size_t pos = 0; pos < text.size();) {
      size_t end = piece_end(pre_tokenizer, text, pos);
      encode_piece(text.substr(pos, end - pos), tokens);
      pos = end;
    }
  }

  // Text without added tokens that are looked for in raw text. A byte that is no UTF-8 is a token by itself.
  void encode_raw(std::string_view text, bool parse_special, std::vector<int32_t>& tokens) const {
    while (!text.empty()) {
      std::string_view valid = text.substr(0, valid_utf8_prefix(text));
      text.remove_prefix(valid.size());
      std::string normalized;
      if (nfc && may_change_under_nfc(valid)) valid = normalized = to_nfc(valid);
      normalized_matcher.split(
          valid, parse_special, [&](std::string_view gap) { encode_valid(gap, tokens); },
          [&](const AddedToken& token) { tokens.push_back(token.id); });
      if (text.empty()) break;
      append_byte(text[0], tokens);
      text.remove_prefix(1);
    }
  }

  std::string json;
  PreTokenizer pre_tokenizer;
  bool nfc;
  std::vector<std::string> token_bytes;
  std::vector<AddedToken> added_tokens;
  std::vector<bool> is_special;
  SpaceInFront space_in_front;
  std::array<int32_t, 256> byte_tokens;
  std::unordered_map<std::string, int32_t> character_tokens;  // kLlama2's
  Bpe bpe;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  std::unordered_map<std::string_view, int32_t> whole_pieces;  // with ignore_merges: the vocabulary, else empty
  int32_t bos = -1;
  uint32_t serial;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) { return from_json(read_file(path), path.string()); }

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& what) {
  return Tokenizer(std::make_unique<Impl>(read_tokenizer_file(json, what), json));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  if (text.size() > kMaxTextBytes)
    throw Error(ErrorCode::kData, "a text of " + std::to_string(text.size()) + " bytes is too long to encode",
                "Cut it into documents of at most 1 GiB.");
  std::vector<int32_t> tokens;
  tokens.reserve(text.size() / 3);
  impl_->raw_matcher.split(
      text, parse_special,
      [&](std::string_view gap) {
        if (impl_->pre_tokenizer == PreTokenizer::kLlama2) {
          impl_->encode_raw(impl_->with_space_in_front(gap, gap.data() == text.data()), parse_special, tokens);
        } else {
          impl_->encode_raw(gap, parse_special, tokens);
        }
      },
      [&](const AddedToken& token) { tokens.push_back(token.id); });
  return tokens;
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool keep_special) const {
  std::string text;
  for (int32_t token : tokens) {
    impl_->check_id(token);
    if (keep_special || !impl_->is_special[token]) text += impl_->token_bytes[token];
  }
  if (impl_->space_in_front != SpaceInFront::kNone && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string_view Tokenizer::token_bytes(int32_t token) const {
  impl_->check_id(token);
  return impl_->token_bytes[token];
}

bool Tokenizer::is_special(int32_t token) const {
  impl_->check_id(token);
  return impl_->is_special[static_cast<size_t>(token)];
}

int Tokenizer::vocab_size() const { return static_cast<int>(impl_->token_bytes.size()); }
int32_t Tokenizer::bos() const { return impl_->bos; }
std::string_view Tokenizer::pre_tokenizer() const { return name_of(impl_->pre_tokenizer); }
const std::string& Tokenizer::json() const { return impl_->json; }

}  // namespace tessera
