// The routers token by token, with kept keys and values: level 2 for each token, level 1 for each finished chunk, which
// is encoded once. The same choices as plan_domains and ComponentChooser make over the whole text.
#pragma once
#include <cstdint>
#include <vector>

#include "train/routers.h"

namespace tessera {

// Keys and values of one router block so far.
struct BlockCache {
  at::Tensor key_1HTh, value_1HTh;  // room for more tokens than are in use
  int64_t length = 0;
};

class RouterDecoder {
 public:
  // For an encoder (or uniform) level 1 and a planner. Both references outlive it.
  RouterDecoder(const Architecture& architecture, const Parameters& parameters);

  struct Choice {
    at::Tensor ids_LK;  // int64
    at::Tensor weights_LK;
  };
  // The next token: its id (for a level 1 with a table of its own) and its embedding [D].
  Choice step(int64_t token, const at::Tensor& embedded_D);
  const std::vector<float>& pi() const { return pi_; }  // [M] in force for the token after the last
  const std::vector<uint8_t>& active() const { return active_; }

 private:
  at::Tensor block(const std::string& prefix, const at::Tensor& x_1QD, int num_heads, const Rotary& rope,
                   BlockCache& cache, int64_t first_key, const at::Tensor& mask) const;
  void finish_chunk();
  void set_active(std::vector<uint8_t> active);

  const Architecture& a_;
  const Parameters& p_;
  int64_t position_ = 0, chunk_begin_ = 0;
  std::vector<BlockCache> level1_, level2_;
  std::vector<at::Tensor> chunk_inputs_;  // level 1's inputs of the open chunk, [1, width] each
  std::vector<float> pi_;
  std::vector<uint8_t> active_, previous_;
  Rotary level1_rope_, level2_rope_;
  at::Tensor bias_LN_;
  // Of the eligible components alone: heads [L * n, width], their ids [n], their bias [1, L, n].
  at::Tensor heads_, column_index_, active_bias_;
  std::vector<int64_t> columns_;
  std::vector<std::vector<int32_t>> all_;  // 0..n-1
};

}  // namespace tessera
