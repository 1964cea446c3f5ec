#include "train/packed_rows.h"

#include <algorithm>

#include "base/error.h"
#include "core/route.h"

namespace tessera {
namespace {

at::Tensor to_tensor(const std::vector<int32_t>& values, at::IntArrayRef shape, at::Device device) {
  return at::from_blob(const_cast<int32_t*>(values.data()), shape, at::kInt).to(at::kLong).to(device);
}

}  // namespace

PackedRows pack_rows(int64_t num_rows, int64_t num_tokens, const std::vector<int32_t>& tokens_RT,
                     const std::vector<int32_t>& starts_RT, const std::vector<int32_t>& targets_RT,
                     std::vector<int32_t> labels_RT, int chunk_tokens, at::Device device) {
  const size_t size = static_cast<size_t>(num_rows * num_tokens);
  TESSERA_CHECK(tokens_RT.size() == size && starts_RT.size() == size, "rows of unequal length");
  PackedRows rows;
  rows.num_rows = num_rows;
  rows.num_tokens = num_tokens;
  rows.tokens_RT = to_tensor(tokens_RT, {num_rows, num_tokens}, device);
  rows.starts_RT = to_tensor(starts_RT, {num_rows, num_tokens}, device);
  rows.positions_RT = at::arange(num_tokens, rows.starts_RT.options()) - rows.starts_RT;
  if (!targets_RT.empty()) rows.targets_RT = to_tensor(targets_RT, {num_rows, num_tokens}, device);
  rows.labels_RT = std::move(labels_RT);

  std::vector<int32_t> ids(size), ends(size);
  for (int64_t r = 0; r < num_rows; ++r) {
    for (int64_t t = 0; t < num_tokens; ++t) {
      const int64_t start = starts_RT[static_cast<size_t>(r * num_tokens + t)];
      const bool first = t == start;
      const bool begins = first || t == 0 ||
                          chunk_of(static_cast<int>(t - start), chunk_tokens) !=
                              chunk_of(static_cast<int>(t - 1 - start), chunk_tokens);
      if (begins) rows.chunks.push_back({r, t, t, start, first});
      rows.chunks.back().end = t + 1;
      ids[static_cast<size_t>(r * num_tokens + t)] = static_cast<int32_t>(rows.chunks.size()) - 1;
    }
  }
  for (size_t s = 0; s < size; ++s) ends[s] = static_cast<int32_t>(rows.chunks[static_cast<size_t>(ids[s])].end);
  rows.chunk_id_S = to_tensor(ids, {static_cast<int64_t>(size)}, device);
  rows.chunk_ends_RT = to_tensor(ends, {num_rows, num_tokens}, device);
  return rows;
}

PackedRows pack_texts(const std::vector<LabelledText>& texts, int chunk_tokens) {
  size_t longest = 0;
  for (const LabelledText& text : texts) longest = std::max(longest, text.tokens.size());
  std::vector<int32_t> tokens, starts, targets, labels;
  for (const LabelledText& text : texts) {
    const size_t length = text.tokens.size();
    for (size_t t = 0; t < longest; ++t) {
      const bool pad = t >= length;
      tokens.push_back(pad ? 0 : text.tokens[t]);
      starts.push_back(pad ? static_cast<int32_t>(length) : 0);
      targets.push_back(t + 1 < length ? text.tokens[t + 1] : -1);
      labels.push_back(pad ? -1 : text.labels[t]);
    }
  }
  return pack_rows(static_cast<int64_t>(texts.size()), static_cast<int64_t>(longest), tokens, starts, targets,
                   std::move(labels), chunk_tokens, at::kCPU);
}

Patches patches_of(const PackedRows& rows, int patch_tokens) {
  const at::Device device = rows.starts_RT.device();
  const auto patches_in = [&](int64_t tokens) { return (tokens + patch_tokens - 1) / patch_tokens; };
  Patches patches;
  PackedRows& out = patches.rows;
  out.num_rows = rows.num_rows;
  std::vector<int64_t> row_length(static_cast<size_t>(rows.num_rows), 0);
  for (const PackedRows::Chunk& chunk : rows.chunks) {
    TESSERA_CHECK((chunk.begin - chunk.piece_start) % patch_tokens == 0, "a chunk begins within a patch");
    int64_t& length = row_length[static_cast<size_t>(chunk.row)];
    const int64_t begin = length;
    length += patches_in(chunk.end - chunk.begin);
    out.chunks.push_back({chunk.row, begin, length, chunk.first ? begin : out.chunks.back().piece_start, chunk.first});
  }
  for (const int64_t length : row_length) out.num_tokens = std::max(out.num_tokens, length);

  const size_t size = static_cast<size_t>(rows.num_rows * out.num_tokens);
  std::vector<int32_t> starts(size), ends(size), ids(size, static_cast<int32_t>(rows.chunks.size()));
  std::vector<int32_t> patch_ids(static_cast<size_t>(rows.num_rows * rows.num_tokens));
  for (size_t i = 0; i < size; ++i) {  // until a chunk claims it, a piece of its own
    starts[i] = static_cast<int32_t>(static_cast<int64_t>(i) % out.num_tokens);
    ends[i] = starts[i] + 1;
  }
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const PackedRows::Chunk &chunk = rows.chunks[c], &patched = out.chunks[c];
    for (int64_t t = chunk.begin; t < chunk.end; ++t) {
      const size_t i =
          static_cast<size_t>(chunk.row * out.num_tokens + patched.begin + (t - chunk.begin) / patch_tokens);
      starts[i] = static_cast<int32_t>(patched.piece_start);
      ends[i] = static_cast<int32_t>(patched.end);
      ids[i] = static_cast<int32_t>(c);
      patch_ids[static_cast<size_t>(chunk.row * rows.num_tokens + t)] = static_cast<int32_t>(i);
    }
  }
  const std::vector<int64_t> shape = {out.num_rows, out.num_tokens};
  out.starts_RT = to_tensor(starts, shape, device);
  out.positions_RT = at::arange(out.num_tokens, out.starts_RT.options()) - out.starts_RT;
  out.chunk_ends_RT = to_tensor(ends, shape, device);
  out.chunk_id_S = to_tensor(ids, {static_cast<int64_t>(size)}, device);
  patches.patch_id_S = to_tensor(patch_ids, {static_cast<int64_t>(patch_ids.size())}, device);
  return patches;
}

}  // namespace tessera
