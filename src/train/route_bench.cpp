#include "train/route_bench.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "train/model.h"
#include "train/router_decode.h"

namespace tessera {
namespace {

// Routers alone: the components and the trunk are as small as can be, but for what the routers see.
Architecture routers_only(const Architecture& architecture) {
  Architecture a = architecture;
  a.trunk.vocab_size = std::min(a.trunk.vocab_size, 4096);
  a.trunk.num_heads = a.trunk.num_kv_heads = 1;
  a.trunk.head_dim = 2;
  a.hierarchy.num_banks = a.hierarchy.base_width = a.hierarchy.always_on_width = 0;
  a.hierarchy.base.clear();
  a.hierarchy.unique_width = 1;
  return a;
}

struct Text {
  PackedRows rows;
  at::Tensor embedded_RTD;
};

Text random_text(const Architecture& a, int64_t num_tokens) {
  Rng rng(5, static_cast<uint64_t>(num_tokens));
  std::vector<int32_t> tokens, starts(static_cast<size_t>(num_tokens), 0);
  for (int64_t t = 0; t < num_tokens; ++t)
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(a.trunk.vocab_size))));
  at::Tensor embedded = at::empty({1, num_tokens, a.trunk.width});
  for (int64_t i = 0; i < embedded.numel(); ++i)
    embedded.data_ptr<float>()[i] = static_cast<float>(0.05 * rng.normal());
  return {pack_rows(1, num_tokens, tokens, starts, {}, {}, a.domain_router.chunk_tokens, at::kCPU), embedded};
}

class Routers {
 public:
  explicit Routers(const Architecture& architecture) : a_(routers_only(architecture)), p_(a_, 1) {}
  double prefill_ms(const Text& text) const {
    const double begin = now_s();
    const RoutingOptions options;
    const DomainPlan domains = plan_domains(a_, p_, text.rows, text.embedded_RTD, options);
    ComponentChooser chooser(a_, p_, text.rows, options);
    chooser.plan(text.embedded_RTD, domains);
    for (int l = a_.trunk.num_dense_layers; l < a_.trunk.num_layers; ++l) chooser.choose(l, {});
    return 1e3 * (now_s() - begin);
  }
  // A token, behind a text of 512.
  double decode_ms(const Text& text, int num_tokens) const {
    RouterDecoder decoder(a_, p_);
    const at::Tensor ids = text.rows.tokens_RT[0].contiguous();
    double begin = 0;
    constexpr int kPrefix = 512;
    for (int t = 0; t < kPrefix + num_tokens; ++t) {
      if (t == kPrefix) begin = now_s();
      decoder.step(ids.data_ptr<int64_t>()[t], text.embedded_RTD[0][t]);
    }
    return 1e3 * (now_s() - begin) / num_tokens;
  }
  const Architecture& architecture() const { return a_; }

 private:
  Architecture a_;
  Parameters p_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Pair {
  double progressive = 0, monolithic = 0, ratio = 0;
};

// A B A B; the ratio is the median of the turns' ratios, since the machine's speed drifts.
template <class A, class B>
Pair in_turns(int repeats, const A& a, const B& b) {
  a(), b();
  std::vector<double> of_a, of_b, ratios;
  for (int i = 0; i < repeats; ++i) {
    of_a.push_back(a());
    of_b.push_back(b());
    ratios.push_back(of_a.back() / of_b.back());
  }
  return {median(of_a), median(of_b), median(ratios)};
}

}  // namespace

Architecture with_components(const Architecture& architecture, int num_components) {
  Architecture a = architecture;
  const int routed = static_cast<int>(routed_domains(a.hierarchy).size());
  const int others = static_cast<int>(a.hierarchy.domains.size()) - routed;
  for (Domain& d : a.hierarchy.domains) {
    d.num_components = d.always ? num_components / 2 / others : (others ? num_components / 2 : num_components) / routed;
    d.components.clear();
    TESSERA_CHECK(d.num_components >= 1, "too few components for these domains");
  }
  a.hierarchy.base.clear();
  return a;
}

Architecture monolithic(const Architecture& architecture, int width, int num_layers) {
  Architecture a = architecture;
  a.domain_router = {};
  a.domain_router.kind = "uniform";
  a.component_router = {};
  a.component_router.width = width;
  a.component_router.num_layers = num_layers;
  a.component_router.num_heads = std::max(1, width / 32);
  while (width % (2 * a.component_router.num_heads) != 0) --a.component_router.num_heads;
  return a;
}

Json bench_routers(const Architecture& architecture, const RouteBenchOptions& options) {
  const at::NoGradGuard no_grad;
  if (architecture.component_router.kind != "planner" || architecture.domain_router.kind != "encoder") {
    throw Error(ErrorCode::kConfig,
                "bench route needs a config with an encoder as domain_router and a planner as component_router",
                "configs/demo.json is one");
  }
  const int width = options.monolithic_width > 0 ? options.monolithic_width : architecture.trunk.width;
  const int own = num_components(architecture.hierarchy);
  std::vector<int> sizes = options.components;
  if (std::find(sizes.begin(), sizes.end(), own) == sizes.end()) sizes.push_back(own);
  std::sort(sizes.begin(), sizes.end());
  const auto say = [&](const std::string& line) {
    if (options.say) options.say(line);
  };

  Json report = {{"by_components", Json::object()}, {"by_components_decode", Json::object()}};
  for (int n : sizes) {
    const Architecture a = n == own ? architecture : with_components(architecture, n);
    const Routers progressive(a), whole(monolithic(a, width, options.monolithic_layers));
    const Text text512 = random_text(progressive.architecture(), 512);
    const Text decode_text = random_text(progressive.architecture(), 512 + options.decode_tokens);
    const Pair prefill = in_turns(
        options.repeats, [&] { return progressive.prefill_ms(text512); }, [&] { return whole.prefill_ms(text512); });
    const Pair decode = in_turns(
        std::max(3, options.repeats / 5), [&] { return progressive.decode_ms(decode_text, options.decode_tokens); },
        [&] { return whole.decode_ms(decode_text, options.decode_tokens); });
    report["by_components"][std::to_string(n)] = prefill.ratio;
    report["by_components_decode"][std::to_string(n)] = decode.ratio;
    say(
        fmt::format("{:>4} components  prefill 512: {:7.3f} ms against {:7.3f} ms, ratio {:.3f}   decode: {:.4f} ms "
                    "against {:.4f} ms, ratio {:.3f}",
                    n, prefill.progressive, prefill.monolithic, prefill.ratio, decode.progressive, decode.monolithic,
                    decode.ratio));
    if (n != own) continue;
    const Text text4096 = random_text(progressive.architecture(), 4096);
    const Pair longer = in_turns(
        std::max(3, options.repeats / 3), [&] { return progressive.prefill_ms(text4096); },
        [&] { return whole.prefill_ms(text4096); });
    say(fmt::format("{:>4} components  prefill 4096: {:7.3f} ms against {:7.3f} ms, ratio {:.3f}", n,
                    longer.progressive, longer.monolithic, longer.ratio));
    report["progressive_ms_prefill512"] = prefill.progressive;
    report["monolithic_ms_prefill512"] = prefill.monolithic;
    report["ratio_prefill512"] = prefill.ratio;
    report["progressive_ms_prefill4096"] = longer.progressive;
    report["monolithic_ms_prefill4096"] = longer.monolithic;
    report["ratio_prefill4096"] = longer.ratio;
    report["progressive_ms_decode"] = decode.progressive;
    report["monolithic_ms_decode"] = decode.monolithic;
    report["ratio_decode"] = decode.ratio;
    // The whole model's forward pass of the same text.
    const Model model(architecture, Parameters(architecture, 1), at::kFloat);
    const Pair share = in_turns(
        std::max(3, options.repeats / 3), [&] { return progressive.prefill_ms(text512); },
        [&] {
          const double begin = now_s();
          model.forward(text512.rows, {});
          return 1e3 * (now_s() - begin);
        });
    report["share_of_forward"] = share.ratio;
    report["forward_ms_prefill512"] = share.monolithic;
    say(fmt::format("the routers are {:.1f} % of the forward pass of {:.2f} ms", 100 * share.ratio, share.monolithic));
  }
  report["monolithic"] = {{"width", width}, {"num_layers", options.monolithic_layers}};
  report["progressive"] = {
      {"domain_router",
       {{"width", architecture.domain_router.width}, {"num_layers", architecture.domain_router.num_layers}}},
      {"component_router",
       {{"width", architecture.component_router.width}, {"num_layers", architecture.component_router.num_layers}}}};
  return report;
}

}  // namespace tessera
