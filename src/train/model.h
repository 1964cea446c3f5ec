// The language model in LibTorch: a Llama-shaped trunk whose feed-forward blocks are component layers. The dense model
// and the flat MoE are the same code with another Architecture. DESIGN section 2.
#pragma once
#include <vector>

#include "core/config.h"
#include "train/packed_rows.h"
#include "train/parameters.h"
#include "train/routers.h"

namespace tessera {

struct Forward {
  at::Tensor hidden_RTD;             // after the final norm
  DomainPlan domains;                // empty for a dense model
  std::vector<LayerChoice> choices;  // one a component layer
};

// loss + share * (domain_weight * level 1's cross-entropy + z_loss * the mean of the layers' z-losses). Scalars.
at::Tensor add_router_losses(at::Tensor loss, const Forward& forward, const LossConfig& weights, double share);

class Model {
 public:
  Model(const Architecture& architecture, Parameters parameters, at::ScalarType compute_dtype)
      : architecture_(architecture), parameters_(std::move(parameters)), compute_dtype_(compute_dtype) {}

  Forward forward(const PackedRows& rows, const RoutingOptions& options) const;

  const at::Tensor& head() const {
    return parameters_[architecture_.trunk.tied_embeddings ? "embedding" : "head"];
  }  // [V, D]
  const Architecture& architecture() const { return architecture_; }
  const Parameters& parameters() const { return parameters_; }
  at::Device device() const { return parameters_["embedding"].device(); }
  int chunk_tokens() const { return architecture_.domain_router.chunk_tokens; }

 private:
  at::Tensor feed_forward(int layer, const at::Tensor& x_RTD, ComponentChooser& chooser, Forward& out) const;

  Architecture architecture_;
  Parameters parameters_;
  at::ScalarType compute_dtype_;
};

// The route of one row in core's form, of its first `num_tokens` tokens.
Route route_of_row(const Architecture& architecture, const PackedRows& rows, const Forward& forward, int64_t row,
                   int64_t num_tokens);

}  // namespace tessera
