#include "train/token_table.h"

#include "base/error.h"

namespace tessera {

void token_table_from_teacher(const Teacher& teacher, const Tokenizer& tokenizer, const at::Tensor& table) {
  const at::NoGradGuard no_grad;
  const at::Tensor& words = teacher.word_embeddings();
  const int64_t vocab = table.size(0), width = std::min(table.size(1), words.size(1));
  at::Tensor means = at::zeros({vocab, words.size(1)});
  std::vector<int64_t> known;
  for (int32_t token = 0; token < std::min<int64_t>(vocab, tokenizer.vocab_size()); ++token) {
    // Without [CLS] and [SEP].
    std::vector<int32_t> pieces = teacher.word_piece().encode(tokenizer.token_bytes(token), Teacher::kMaxTokens);
    pieces.erase(pieces.begin());
    pieces.pop_back();
    std::erase(pieces, teacher.word_piece().unknown());
    if (pieces.empty()) continue;
    means[token] = words.index_select(0, at::tensor(pieces, at::kLong)).mean(0);
    known.push_back(token);
  }
  TESSERA_CHECK(!known.empty(), "no token has a piece");
  const at::Tensor index = at::tensor(known);
  at::Tensor centred = means.index_select(0, index);
  centred = centred - centred.mean(0);
  // Principal components are the eigenvectors of the covariance, ascending.
  const at::Tensor vectors = std::get<1>(at::linalg_eigh(centred.t().mm(centred)));
  at::Tensor reduced = centred.mm(vectors.flip({1}).narrow(1, 0, width));
  reduced = reduced * (table.std() / reduced.std());
  at::Tensor out = table;
  out.zero_();
  out.narrow(1, 0, width).index_copy_(0, index, reduced);
}

}  // namespace tessera
