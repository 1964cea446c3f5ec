#include "train/model.h"

#include <gtest/gtest.h>

#include "train/blocks.h"
#include "train/losses.h"
#include "train/precompiled.h"
#include "train/scorer.h"
#include "train/tiny_model.h"

namespace tessera {
namespace {

Model make(const Architecture& a, at::ScalarType dtype = at::kDouble) {
  return Model(a, Parameters(a, 3, dtype), dtype);
}

// The whole training loss: language model, level 1, z-loss.
at::Tensor total_loss(const Model& model, const PackedRows& rows, const RoutingOptions& options = {}) {
  const Forward out = model.forward(rows, options);
  at::Tensor loss = linear_cross_entropy_sum(out.hidden_RTD.reshape({-1, out.hidden_RTD.size(-1)}), model.head(),
                                             rows.targets_RT.reshape({-1})) /
                    50.0;
  if (out.domains.loss.defined()) loss = loss + out.domains.loss;
  for (const LayerChoice& choice : out.choices) {
    if (choice.z_loss.defined()) loss = loss + 0.01 * choice.z_loss;
  }
  return loss;
}

// Choices and pi are piecewise constant in the weights, so small steps don't cross an edge (checked: the ids stay).
void expect_gradients(const Architecture& a, double tolerance = 2e-5) {
  const Model model = make(a);
  const PackedRows rows = random_rows(a, 2, 80, {0, 33}, 5);
  std::vector<at::Tensor> inputs;
  std::vector<std::string> names = model.parameters().learnt_names();
  for (const std::string& name : names) inputs.push_back(model.parameters()[name]);
  const auto grads = torch::autograd::grad({total_loss(model, rows)}, inputs, {}, {}, false, /*allow_unused=*/true);
  constexpr double kStep = 1e-6;
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(grads[i].defined()) << names[i] << " has no gradient";
    double* data = inputs[i].data_ptr<double>();
    for (int64_t j = 0; j < inputs[i].numel(); j += 1 + inputs[i].numel() / 5) {
      const double saved = data[j];
      data[j] = saved + kStep;
      const double above = total_loss(model, rows).item<double>();
      data[j] = saved - kStep;
      const double below = total_loss(model, rows).item<double>();
      data[j] = saved;
      EXPECT_NEAR(grads[i].contiguous().data_ptr<double>()[j], (above - below) / (2 * kStep), tolerance)
          << names[i] << " element " << j;
    }
  }
}

TEST(ModelGradients, HierarchyAgreesWithFiniteDifferences) {
  Architecture a = tiny_architecture();
  // A learnt embedding moves level 1's input, whose own loss must not reach it: finite differences would see that path.
  a.domain_router.kind = "uniform";
  a.trunk.previous_token = true;
  expect_gradients(a);
}

TEST(ModelGradients, FlatMoeAndDenseAgreeWithFiniteDifferences) {
  Architecture a = tiny_architecture();
  a.hierarchy.domains = {{"all", 6, false, {}}};
  a.hierarchy.num_banks = a.hierarchy.base_width = 0;
  a.hierarchy.always_on_width = 4;
  a.domain_router.kind = "none";
  a.component_router.kind = "gate";
  a.trunk.num_dense_layers = 1;
  a.trunk.dense_width = 12;
  a.trunk.tied_embeddings = false;
  expect_gradients(a);
  a.hierarchy = {};
  expect_gradients(a);
}

TEST(ModelGradients, LevelOneOnPatchesAgreesWithFiniteDifferences) {
  Architecture a = tiny_architecture();
  a.domain_router.own_embedding = true;  // the trunk's would move level 1's input without a gradient
  a.domain_router.chunk_tokens = 16;
  a.domain_router.patch_tokens = 4;
  expect_gradients(a);
}

TEST(ModelGradients, LevelOneLearnsFromItsOwnLossAlone) {
  const Architecture a = tiny_architecture();
  const Model model = make(a);
  const PackedRows rows = random_rows(a, 2, 80, {0}, 5);
  const Forward out = model.forward(rows, {});
  ASSERT_TRUE(out.domains.loss.defined());
  const std::vector<at::Tensor> inputs = {model.parameters()["domain_router.head"], model.parameters()["embedding"]};
  const auto from_own = torch::autograd::grad({out.domains.loss}, inputs, {}, true, false, true);
  EXPECT_TRUE(from_own[0].defined() && from_own[0].abs().max().item<double>() > 0);
  EXPECT_FALSE(from_own[1].defined());
  const auto from_text = torch::autograd::grad({out.hidden_RTD.sum()}, inputs, {}, true, false, true);
  EXPECT_FALSE(from_text[0].defined());
}

TEST(Model, ChangingATokenChangesNothingBeforeIt) {
  for (const char* kind : {"planner", "gate"}) {
    Architecture a = tiny_architecture();
    a.component_router.kind = kind;
    a.domain_router.chunk_tokens = 16;
    a.domain_router.window_tokens = 32;
    a.domain_router.patch_tokens = a.component_router.kind == "gate" ? 8 : 1;
    a.trunk.previous_token = true;
    const Model model = make(a, at::kFloat);
    std::vector<int32_t> tokens(90);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 50);
    Route route;
    const at::Tensor before = logits_of(model, tokens, {}, &route);
    for (size_t changed : {1, 15, 16, 17, 40, 63, 64, 65, 89}) {
      std::vector<int32_t> other = tokens;
      for (size_t t = changed; t < other.size(); ++t) other[t] = (other[t] + 11) % 50;
      Route other_route;
      const at::Tensor after = logits_of(model, other, {}, &other_route);
      const int64_t n = static_cast<int64_t>(changed);
      EXPECT_LT((before.narrow(0, 0, n) - after.narrow(0, 0, n)).abs().max().item<float>(), 1e-5)
          << kind << " " << changed;
      EXPECT_GT((before.narrow(0, n, 1) - after.narrow(0, n, 1)).abs().max().item<float>(), 1e-4);
      const size_t choices = changed * static_cast<size_t>(route.num_layers * route.num_active);
      EXPECT_TRUE(std::equal(route.components_TLK.begin(), route.components_TLK.begin() + static_cast<int64_t>(choices),
                             other_route.components_TLK.begin()));
    }
  }
}

TEST(Model, APieceIsTheSameAloneAndPacked) {
  Architecture a = tiny_architecture();
  a.trunk.previous_token = true;  // of the piece, not of the row
  const Model model = make(a);
  const PackedRows packed = random_rows(a, 1, 90, {0, 27}, 9);
  const Forward together = model.forward(packed, {});
  const at::Tensor tail = packed.tokens_RT[0].narrow(0, 27, 63).to(at::kInt).contiguous();
  const std::vector<int32_t> tokens(tail.data_ptr<int32_t>(), tail.data_ptr<int32_t>() + 63);
  const std::vector<int32_t> starts(63, 0);
  const Forward alone =
      model.forward(pack_rows(1, 63, tokens, starts, {}, {}, a.domain_router.chunk_tokens, at::kCPU), {});
  EXPECT_LT((together.hidden_RTD[0].narrow(0, 27, 63) - alone.hidden_RTD[0]).abs().max().item<double>(), 1e-9);
}

TEST(Model, OneDomainWithoutBanksAndALinearGateIsTheFlatMoe) {
  Architecture a = tiny_architecture();
  a.hierarchy.domains = {{"all", 6, false, {}}};
  a.hierarchy.num_banks = a.hierarchy.base_width = 0;
  a.domain_router.kind = "none";
  a.component_router.kind = "gate";
  const Model model = make(a);
  const PackedRows rows = random_rows(a, 1, 40, {0}, 2);
  const Forward out = model.forward(rows, {});
  // Mixtral's block from the layer's input, with plain loops over tokens.
  const Parameters& p = model.parameters();
  const Rotary rope = rotary(rows.positions_RT, 4, a.trunk.rope_theta, at::kDouble);
  at::Tensor x = at::embedding(p["embedding"], rows.tokens_RT);
  const Visible visible = causal(rows.starts_RT, x);
  for (int l = 0; l < 2; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    x = x + attention(rms_norm(x, p[prefix + "attention_norm"], 1e-5),
                      {p[prefix + "attention.query"], p[prefix + "attention.key"], p[prefix + "attention.value"],
                       p[prefix + "attention.output"]},
                      4, 2, rope, visible);
    const at::Tensor h = rms_norm(x, p[prefix + "feed_forward_norm"], 1e-5)[0];
    const at::Tensor scores = at::mm(h, p[prefix + "router_gate"].t());
    at::Tensor y = at::zeros_like(h);
    for (int64_t t = 0; t < h.size(0); ++t) {
      const auto [top, ids] = at::topk(at::softmax(scores[t], 0), 2);
      for (int64_t k = 0; k < 2; ++k) {
        const int64_t id = ids[k].item<int64_t>();
        const at::Tensor gate_up = at::mv(p[prefix + "components.gate_up"][id], h[t]);
        const at::Tensor hidden = at::silu(gate_up.narrow(0, 0, 6)) * gate_up.narrow(0, 6, 6);
        y[t] += top[k] / top.sum() * at::mv(p[prefix + "components.down"][id], hidden);
      }
    }
    x = x + y.unsqueeze(0);
  }
  EXPECT_LT((rms_norm(x, p["final_norm"], 1e-5) - out.hidden_RTD).abs().max().item<double>(), 1e-6);
}

TEST(Model, ADeniedDomainIsNeverChosenAndItsWeightsNeverRead) {
  const Architecture a = tiny_architecture();
  const Model model = make(a, at::kFloat);
  RoutingOptions options;
  options.allowed_domains = {1, 0};  // "mathematics", components 6 and 7, is denied
  const std::vector<int32_t> tokens = {0, 5, 9, 2, 7, 30, 41, 8, 3, 3, 12, 17, 22, 6, 4, 19, 25, 28, 11, 10};
  Route route;
  const at::Tensor before = logits_of(model, tokens, options, &route);
  for (int32_t id : route.components_TLK) EXPECT_LT(id, 6);
  const at::NoGradGuard no_grad;
  for (int l = 0; l < 2; ++l) {
    for (const char* stack : {"components.gate_up", "components.down"}) {
      model.parameters()["layers." + std::to_string(l) + "." + stack].narrow(0, 6, 2).fill_(
          std::numeric_limits<float>::quiet_NaN());
    }
  }
  EXPECT_TRUE(at::equal(before, logits_of(model, tokens, options)));
}

TEST(Model, AReplayedRouteGivesTheSameLogits) {
  const Architecture a = tiny_architecture();
  const Model model = make(a, at::kFloat);
  const std::vector<std::vector<int32_t>> texts = {{0, 5, 9, 2, 7, 30, 41, 8}, {0, 1, 2, 3}};
  ModelScorer scorer(model);
  const auto first = scorer.score(texts);
  std::vector<Route> routes;
  for (const ScoredText& text : first) routes.push_back(route_from_json(to_json(text.route), a));
  const auto second = scorer.score(texts, {}, routes);
  for (size_t i = 0; i < texts.size(); ++i) {
    for (size_t t = 0; t < first[i].log_probs.size(); ++t)
      EXPECT_NEAR(first[i].log_probs[t], second[i].log_probs[t], 1e-5);
  }
}

TEST(Losses, ChunkedCrossEntropyEqualsThePlainOne) {
  at::manual_seed(1);
  at::Tensor hidden = at::randn({1030, 8}, at::kDouble).requires_grad_(true),
             head = at::randn({17, 8}, at::kDouble).requires_grad_(true);
  at::Tensor targets = at::randint(0, 17, {1030});
  targets.narrow(0, 500, 40).fill_(-1);
  const at::Tensor ours = linear_cross_entropy_sum(hidden, head, targets);
  const at::Tensor plain = at::cross_entropy_loss(at::mm(hidden, head.t()), targets, {}, at::Reduction::Sum, -1);
  EXPECT_NEAR(ours.item<double>(), plain.item<double>(), 1e-8);
  const auto our_grads = torch::autograd::grad({ours * 0.3}, {hidden, head}),
             plain_grads = torch::autograd::grad({plain * 0.3}, {hidden, head});
  for (int i = 0; i < 2; ++i)
    EXPECT_LT((our_grads[static_cast<size_t>(i)] - plain_grads[static_cast<size_t>(i)]).abs().max().item<double>(),
              1e-9);
  EXPECT_NEAR(target_log_probs(hidden, head, targets).sum().item<double>(), -plain.item<double>(), 1e-3);
  const at::Tensor rounded = hidden.detach().to(at::kBFloat16), head_f32 = head.detach().to(at::kFloat);
  const double trained = linear_cross_entropy_sum(rounded, head_f32, targets).item<double>();
  EXPECT_NEAR(target_log_probs(rounded, head_f32, targets).sum().item<double>(), -trained, 1e-3 * trained);
}

// bf16 runs on the kernels here; f16 takes the tensor operations, as bf16 does on a GPU.
TEST(Model, HalfPrecisionIsNearF32) {
  const Architecture a = tiny_architecture();
  const PackedRows rows = random_rows(a, 2, 64, {0, 30}, 4);
  const Model exact = make(a, at::kFloat);
  const double loss = total_loss(exact, rows).item<double>();
  for (const at::ScalarType precision : {at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(c10::toString(precision));
    const Model rounded(a, Parameters(a, 3), precision);
    EXPECT_NEAR(total_loss(rounded, rows).item<double>(), loss, 0.02 * loss);
    torch::autograd::backward({total_loss(rounded, rows)}, {});
    for (const std::string& name : rounded.parameters().learnt_names()) {
      ASSERT_TRUE(rounded.parameters()[name].grad().defined()) << name;
      EXPECT_EQ(rounded.parameters()[name].grad().scalar_type(), at::kFloat) << name;
    }
  }
}

}  // namespace
}  // namespace tessera
