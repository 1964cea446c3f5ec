// A micro-batch as the model sees it: rows of packed pieces, and the chunks that level 1 decides on.
#pragma once
#include <cstdint>
#include <vector>

#include "data/domain_sampler.h"
#include "train/torch.h"

namespace tessera {

// R rows of T tokens; a piece is a run of tokens that begins with the start token. Nothing crosses a piece.
struct PackedRows {
  int64_t num_rows = 0, num_tokens = 0;
  at::Tensor tokens_RT;            // int64
  at::Tensor starts_RT;            // int64: index in the row where the token's piece begins
  at::Tensor positions_RT;         // int64: t - start
  at::Tensor targets_RT;           // int64: next token, -1 where none counts; may be undefined
  std::vector<int32_t> labels_RT;  // routed domain of each token, -1 unknown; may be empty (all unknown)

  // Chunks in order of (row, begin). A chunk never crosses a piece.
  struct Chunk {
    int64_t row, begin, end;  // tokens [begin, end) of the row
    int64_t piece_start;      // begin of its piece
    bool first;               // of its piece: no decision came before it
  };
  std::vector<Chunk> chunks;
  at::Tensor chunk_id_S;     // int64 [R * T]: index into chunks
  at::Tensor chunk_ends_RT;  // int64: end of the token's chunk in its row
};

// Vectors are row-major [R * T]; labels and targets may be empty.
PackedRows pack_rows(int64_t num_rows, int64_t num_tokens, const std::vector<int32_t>& tokens_RT,
                     const std::vector<int32_t>& starts_RT, const std::vector<int32_t>& targets_RT,
                     std::vector<int32_t> labels_RT, int chunk_tokens, at::Device device);

// Texts as rows, each token's target the next one; what pads a short row is a piece of its own without labels.
PackedRows pack_texts(const std::vector<LabelledText>& texts, int chunk_tokens);

// The same rows with every patch_tokens tokens of a piece as one (fewer at its end): what level 1 encodes. tokens_RT,
// targets_RT and labels_RT are left out; chunks are the same in number and order, in patches. Shorter rows are filled
// up with pieces of one patch whose chunk_id is chunks.size(). Chunks must begin at multiples of patch_tokens of their
// piece.
struct Patches {
  PackedRows rows;
  at::Tensor patch_id_S;  // int64 [S]: index into [R * T'] of each token
};
Patches patches_of(const PackedRows& rows, int patch_tokens);

}  // namespace tessera
