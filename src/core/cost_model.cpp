#include "core/cost_model.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"

namespace tessera {
namespace {

int num_active_banks(const Hierarchy& h) { return std::min(h.num_active, h.num_banks); }

// The planner heads of domains that aren't active for the token: names of tensors that it is not multiplied with.
std::vector<std::string> idle_heads(const Architecture& a) {
  if (a.domain_router.kind == "none" || a.domain_router.kind == "uniform") return {};
  const Domain* largest = nullptr;
  for (const Domain& d : a.hierarchy.domains) {
    if (!d.always && (largest == nullptr || d.num_components > largest->num_components)) largest = &d;
  }
  std::vector<std::string> names;
  for (const Domain& d : a.hierarchy.domains) {
    if (!d.always && &d != largest) names.push_back("component_router.heads." + d.name);
  }
  return names;
}

// Kept for the backward pass, a token: what a router's pre-norm block (width w, SwiGLU of 2 w) or the trunk's produces.
double router_block_activations(double width) { return 3 * width + 4 * width + 2 * width + 3 * 2 * width; }

double layer_activations(const Architecture& a, int layer) {
  const Trunk& t = a.trunk;
  const Hierarchy& h = a.hierarchy;
  const double attention = 3.0 * t.width + 2.0 * (t.num_heads + t.num_kv_heads) * head_dim(t);
  const double norms = 2.0 * t.width;
  if (!has_components(a, layer)) return attention + norms + 3.0 * t.dense_width + t.width;
  // gate, up and their product of each bank and unique part, [b ; u] put together, and the outputs.
  const double components = num_active_banks(h) * 3.0 * h.base_width + h.num_active * (3.0 * h.unique_width + t.width) +
                            h.num_active * (h.num_banks > 0 ? h.base_width + h.unique_width : 0);
  return attention + norms + components + 3.0 * h.always_on_width + num_components(h);
}

ParameterCount count_tensors(const Architecture& a) {
  const Hierarchy& h = a.hierarchy;
  const std::vector<std::string> idle = idle_heads(a);
  // All components of a layer have the same size, and so have its banks: the first ones stand for those chosen.
  const auto is_multiplied = [&](const TensorSpec& tensor) {
    switch (tensor.part) {
      case Part::kEmbedding:
        return false;
      case Part::kDomainRouter:
        return tensor.name != "domain_router.embedding";  // looked up
      case Part::kBank:
        return tensor.index < num_active_banks(h);
      case Part::kComponent:
        return tensor.index < h.num_active;
      case Part::kComponentRouter:
        return !tensor.buffer && std::find(idle.begin(), idle.end(), tensor.name) == idle.end();
      default:
        return true;
    }
  };
  ParameterCount count;
  for (const TensorSpec& tensor : tensor_specs(a)) {
    const int64_t n = num_elements(tensor.shape);
    ParameterCount::OfPart& part = count.parts[static_cast<size_t>(tensor.part)];
    part.total += n;
    if (is_multiplied(tensor)) part.active += n;
    if (tensor.buffer) count.buffers += n;
  }
  if (a.trunk.tied_embeddings) {
    count.parts[static_cast<size_t>(Part::kHead)].active = static_cast<int64_t>(a.trunk.vocab_size) * a.trunk.width;
  }
  return count;
}

}  // namespace

int64_t ParameterCount::total() const {
  int64_t sum = 0;
  for (const OfPart& part : parts) sum += part.total;
  return sum;
}

int64_t ParameterCount::active() const {
  int64_t sum = 0;
  for (const OfPart& part : parts) sum += part.active;
  return sum;
}

int64_t ParameterCount::component_weights() const { return of(Part::kBank).total + of(Part::kComponent).total; }

ParameterCount count_parameters(const Architecture& a) {
  // Every layer behind the dense ones is alike, so all counts are linear in their number: two small models give the
  // line.
  const int few = a.hierarchy.domains.empty() ? 1 : a.trunk.num_dense_layers + 1;
  if (a.trunk.num_layers <= few + 1) return count_tensors(a);
  Architecture shallow = a;
  shallow.trunk.num_layers = few;
  ParameterCount count = count_tensors(shallow);
  shallow.trunk.num_layers = few + 1;
  const ParameterCount next = count_tensors(shallow);
  const int64_t more = a.trunk.num_layers - few;
  const auto extend = [more](int64_t& n, int64_t next_n) { n += more * (next_n - n); };
  for (size_t i = 0; i < count.parts.size(); ++i) {
    extend(count.parts[i].total, next.parts[i].total);
    extend(count.parts[i].active, next.parts[i].active);
  }
  extend(count.buffers, next.buffers);
  return count;
}

TrainBytes train_bytes(const Architecture& a, const TrainConfig& train) {
  const ParameterCount count = count_parameters(a);
  const bool is_bf16 = train.precision == "bf16";
  const double total = static_cast<double>(count.total()), learnt = static_cast<double>(count.total() - count.buffers);
  double elements = a.trunk.previous_token ? 2.0 * a.trunk.width : 0;  // a token
  for (int l = 0; l < a.trunk.num_layers; ++l) elements += layer_activations(a, l);
  if (num_component_layers(a) > 0) {
    if ((a.component_router.kind == "planner" || a.component_router.kind == "sum")) {
      elements += a.component_router.num_layers * router_block_activations(a.component_router.width);
    }
    if (a.component_router.kind != "gate")
      elements += static_cast<double>(num_component_layers(a)) * num_components(a.hierarchy);
    if (a.domain_router.kind == "encoder") {
      elements +=
          a.domain_router.num_layers * router_block_activations(a.domain_router.width) / a.domain_router.patch_tokens;
    }
  }
  const double tokens = static_cast<double>(train.micro_batch_tokens);
  TrainBytes bytes;
  bytes.weights = (is_bf16 ? 6 : 4) * total;
  bytes.gradients = 4 * learnt;
  bytes.moments = 8 * learnt;
  bytes.activations = tokens * elements * (is_bf16 ? 2 : 4);
  bytes.logits = std::min(tokens, static_cast<double>(kLogitsChunkTokens)) * a.trunk.vocab_size * 12;
  return bytes;
}

RunBytes run_bytes(const Architecture& a) {
  const Trunk& t = a.trunk;
  double kv_elements = 2.0 * t.num_layers * t.num_kv_heads * head_dim(t);  // a token
  if (num_component_layers(a) > 0 && (a.component_router.kind == "planner" || a.component_router.kind == "sum")) {
    kv_elements += 2.0 * a.component_router.num_layers * a.component_router.width;
  }
  return {2.0 * static_cast<double>(count_parameters(a).total()), 2.0 * kv_elements * t.context_length};
}

Flops forward_flops(const Architecture& a) {
  const Trunk& t = a.trunk;
  const double mean_span = t.context_length / 2.0;
  const ParameterCount parameters = count_parameters(a);
  double weights = static_cast<double>(parameters.active());  // multiplied once a token, level 1's once a patch
  double attention = 4.0 * t.num_layers * t.num_heads * head_dim(t) * mean_span;
  if (num_component_layers(a) > 0) {
    if ((a.component_router.kind == "planner" || a.component_router.kind == "sum")) {
      attention += 4.0 * a.component_router.num_layers * a.component_router.width * mean_span;
    }
    if (a.domain_router.kind == "encoder") {
      const double patch = a.domain_router.patch_tokens;
      attention += 4.0 * a.domain_router.num_layers * a.domain_router.width *
                   std::min(mean_span, static_cast<double>(a.domain_router.window_tokens)) / (patch * patch);
      weights -= (1 - 1 / patch) * static_cast<double>(parameters.of(Part::kDomainRouter).active);
    }
  }
  return {2.0 * weights, attention};
}

std::vector<Hardware> known_hardware() {
  // The f32 peak of one AVX2 core at 2.5 GHz: two fused multiply-adds of 8 lanes, 32 FLOPs a cycle.
  constexpr double kCoreFlops = 80e9;
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  const Hardware h100 = {"H100 SXM 80 GB", "989 TFLOPS bf16", 1, 989e12, 0.40, 80e9, 3.35e12};
  Hardware node = h100, cluster = h100;
  node.name = "8 x H100 SXM", node.num_devices = 8;
  cluster.name = "1024 x H100 SXM", cluster.num_devices = 1024;
  cluster.share_of_peak = 0.30;  // what is left after the traffic between nodes
  return {
      {"this machine", fmt::format("{} x 80 GFLOPS f32", num_cpus()), 1, num_cpus() * kCoreFlops, 0.40, memory, 20e9},
      {"2-core CPU", "100 GFLOPS f32", 1, 100e9, 0.40, 8e9, 20e9},
      h100,
      node,
      cluster};
}

HardwareEstimate estimate_on(const Hardware& hardware, const Architecture& a, const TrainConfig& train) {
  const TrainBytes bytes = train_bytes(a, train);
  const RunBytes run = run_bytes(a);
  const double flops = forward_flops(a).total(), devices = hardware.num_devices;
  const double sustained = devices * hardware.peak_flops * hardware.share_of_peak;
  HardwareEstimate estimate;
  const double tokens = static_cast<double>(train.steps) * static_cast<double>(train.batch_tokens);
  estimate.train_s = tokens * kTrainPasses * flops / sustained;
  estimate.train_bytes_a_device = (bytes.weights + bytes.gradients + bytes.moments) / devices +
                                  bytes.activations / std::min(hardware.num_devices, kDevicesANode) + bytes.logits;
  estimate.train_fits = estimate.train_bytes_a_device <= hardware.memory_bytes;
  const double run_devices = std::ceil(run.total() / hardware.memory_bytes);
  if (run_devices <= devices) {
    const double read_bytes = 2.0 * static_cast<double>(count_parameters(a).active()) + run.kv_cache / 2;
    const double read_s = read_bytes / (run_devices * hardware.bytes_per_s);
    const double compute_s = flops / (run_devices * hardware.peak_flops * hardware.share_of_peak);
    estimate.run_devices = static_cast<int>(run_devices);
    estimate.generate_tokens_per_s = 1 / std::max(read_s, compute_s);
  }
  return estimate;
}

Architecture flat_twin(const Architecture& a) {
  Architecture flat = a;
  if (a.hierarchy.domains.empty()) return flat;
  Hierarchy& h = flat.hierarchy;
  h.unique_width += h.base_width;
  h.base_width = h.num_banks = 0;
  h.base.clear();
  h.domains = {{"all", num_components(a.hierarchy), false, {}}};
  flat.domain_router = DomainRouter{};
  flat.component_router = ComponentRouter{};
  flat.component_router.kind = "gate";
  return flat;
}

SolvedWidths solve_widths(const Architecture& shape, const Architecture& flat, double total_share,
                          double active_share) {
  if (shape.hierarchy.domains.empty())
    throw Error(ErrorCode::kConfig, "a dense model has no components or banks whose widths could be found",
                "name the config of a model with domains");
  const double n = num_components(shape.hierarchy), k = shape.hierarchy.num_active;
  const double g = shape.hierarchy.num_banks, active_g = num_active_banks(shape.hierarchy);
  SolvedWidths solved{shape, 0, 0};
  Hierarchy& h = solved.architecture.hierarchy;
  int &base = g > 0 ? h.base_width : h.always_on_width, &unique = h.unique_width;  // base: what is shared
  h.base_width = base = unique = 0;
  const ParameterCount rest = count_parameters(solved.architecture), flat_count = count_parameters(flat);
  const double flat_total = static_cast<double>(flat_count.total()),
               flat_active = static_cast<double>(flat_count.active());
  // What is left for banks and components, in units of one row a layer; both are linear in Fb and Fu:
  //   total  (2 G + N) Fb + 3 N Fu <= T        active  (2 min(K, G) + K) Fb + 3 K Fu = A
  // and with an always-on component instead of banks in its width Fa and Fu:
  //   total  3 Fa + 3 N Fu <= T                active  3 Fa + 3 K Fu = A
  const double unit = static_cast<double>(num_component_layers(shape)) * shape.trunk.width;
  const double total_rows = (total_share * flat_total - static_cast<double>(rest.total())) / unit;
  const double active_rows = (active_share * flat_active - static_cast<double>(rest.active())) / unit;
  const double base_total = g > 0 ? 2 * g + n : 3, base_active = g > 0 ? 2 * active_g + k : 3;
  const double per_active = n / k;  // what a row of active weights is worth in total, were nothing shared
  const double saved = per_active * base_active - base_total;
  const double exact_base = saved > 0 ? (per_active * active_rows - total_rows) / saved : 0;
  // Both within 1 % of what was asked for, the total from below; among those the nearest.
  const double active_tolerance = 0.01 * active_share * flat_active / unit, total_tolerance = 0.01 * flat_total / unit;
  double best = 2;
  bool found = false;
  for (int step : {8, 4, 2, 1}) {
    for (int i = -2; i <= 2; ++i) {
      const double b = step * (std::round(exact_base / step) + i);
      // The widest unique part that keeps the total, and the one that meets the active count: the narrower of both.
      const double widest = (total_rows - base_total * b) / (3 * n), wanted = (active_rows - base_active * b) / (3 * k);
      const double u = step * std::floor(std::min(widest, wanted + step / 2.0) / step);
      const double active_miss = std::abs(base_active * b + 3 * k * u - active_rows) / active_tolerance;
      const double total_miss = (total_rows - base_total * b - 3 * n * u) / total_tolerance;
      if (b < 1 || u < 0 || active_miss > 1 || total_miss > 1 || active_miss + total_miss >= best) continue;
      best = active_miss + total_miss, base = static_cast<int>(b), unique = static_cast<int>(u), found = true;
    }
    if (found) break;
  }
  if (!found) {
    const char* hint =
        saved <= 0       ? "with as many banks as components nothing is shared: use fewer banks"
        : exact_base < 1 ? "without sharing it stays below that total already: use more, narrower components"
        : g > 0          ? "a base bank would be wider than its component: use fewer, wider components or fewer banks"
                         : "nothing would be left for the components' own parts: use fewer components";
    throw Error(
        ErrorCode::kConfig,
        fmt::format("no widths give {:.1f} % of the flat MoE's total and {:.1f} % of its active parameters with {} "
                    "components, {} active and {} banks",
                    100 * total_share, 100 * active_share, n, k, g),
        hint);
  }
  const ParameterCount count = count_parameters(solved.architecture);
  solved.total_share = static_cast<double>(count.total()) / flat_total;
  solved.active_share = static_cast<double>(count.active()) / flat_active;
  return solved;
}

namespace {

Json parts_json(const ParameterCount& count) {
  Json json = Json::object();
  for (int i = 0; i < kNumParts; ++i) {
    const ParameterCount::OfPart& part = count.parts[static_cast<size_t>(i)];
    if (part.total == 0 && part.active == 0) continue;
    json[part_name(static_cast<Part>(i))] = {{"total", part.total}, {"active", part.active}};
  }
  return json;
}

}  // namespace

Json parameters_json(const Architecture& architecture) {
  const ParameterCount count = count_parameters(architecture), flat = count_parameters(flat_twin(architecture));
  return {{"total_parameters", count.total()},
          {"active_parameters", count.active()},
          {"flat_total_parameters", flat.total()},
          {"flat_active_parameters", flat.active()},
          {"parts", parts_json(count)},
          {"flat_parts", parts_json(flat)}};
}

}  // namespace tessera
