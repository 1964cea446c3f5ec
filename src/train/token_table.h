// A start for the student's token table: the teacher's word embeddings.
#pragma once
#include "core/tokenizer.h"
#include "train/teacher.h"

namespace tessera {

// Fills `table` [V, width]: each token is the mean of the word embeddings of its text's pieces, on their first `width`
// principal components, scaled to the standard deviation that the table has. Tokens without a known piece are zero.
void token_table_from_teacher(const Teacher& teacher, const Tokenizer& tokenizer, const at::Tensor& table);

}  // namespace tessera
