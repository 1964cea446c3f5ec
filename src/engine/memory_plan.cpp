#include "engine/memory_plan.h"

#include <algorithm>

#include "base/direct_file.h"
#include "base/error.h"
#include "base/log.h"
#include "base/peak_memory.h"
#include "engine/kv_cache.h"
#include "kernels/amx_tiles.h"

namespace tessera::engine {
namespace {

constexpr int64_t kMiB = 1 << 20;

// Keys and values, in whole pages of positions.
int64_t kv_bytes(KvType type, int num_layers, int num_heads, int head_dim, int64_t positions) {
  return KvCache(type, num_layers, num_heads, head_dim).page_bytes() *
         ((positions + kPagePositions - 1) / kPagePositions);
}

int64_t cache_bytes(const Architecture& a, KvType type) {
  const Trunk& t = a.trunk;
  int64_t bytes = kv_bytes(type, t.num_layers, t.num_kv_heads, head_dim(t), t.context_length);
  const auto router = [&](bool is_there, int width, int layers, int heads, int patch) {
    return is_there ? kv_bytes(KvType::kF32, layers, heads, width / heads, (t.context_length + patch - 1) / patch) : 0;
  };
  if (num_component_layers(a) == 0) return bytes;
  bytes += router(a.domain_router.kind == "encoder", a.domain_router.width, a.domain_router.num_layers,
                  a.domain_router.num_heads, a.domain_router.patch_tokens);
  return bytes + router(a.component_router.kind == "planner", a.component_router.width, a.component_router.num_layers,
                        a.component_router.num_heads, /*patch=*/1);
}

// Upper bounds, not exact: buffers grow by doubling, so the sum is counted twice.
int64_t scratch_bytes(const Architecture& a, int num_threads) {
  const Trunk& t = a.trunk;
  const Hierarchy& h = a.hierarchy;
  const int64_t rows = kBudgetPassTokens, heads = int64_t{t.num_heads} * head_dim(t), layers = num_component_layers(a);
  // Numbers a row, as f32 with their quantised form (4 + at most 2.25 bytes): trunk and attention, the rows
  // before, the dense block, routers, the component layer.
  int64_t numbers = (t.previous_token ? 9 : 8) * int64_t{t.width} + 3 * heads + 4 * int64_t{t.dense_width};
  int64_t bytes = 0;
  if (layers > 0) {
    const int64_t n = num_components(h), k = h.num_active, router = a.domain_router.width + a.component_router.width;
    numbers += 12 * router + layers * n + n + 8 * static_cast<int64_t>(h.domains.size());
    numbers += k * (3 * int64_t{h.base_width} + 3 * int64_t{h.unique_width}) + 4 * int64_t{h.always_on_width};
    bytes += a.domain_router.chunk_tokens * (t.width + 12 * int64_t{router}) * 7;  // level 1 may begin a chunk earlier
    bytes += rows * k * 512;                                                       // lists of products and assignments
    bytes += t.context_length * layers * k * 256;  // recorded routes, their copies and JSON
  }
  bytes += rows * numbers * 7;
  // Each thread's rows as tiles want them: 8 and 4 bits, bf16.
  const int64_t tiles =
      (cpu_has_tiles(TileArithmetic::kInt8) ? 152 : 0) + (cpu_has_tiles(TileArithmetic::kBF16) ? 192 : 0);
  const int widest = std::max({t.width, static_cast<int>(heads), t.dense_width, h.base_width + h.unique_width,
                               h.always_on_width, 2 * a.domain_router.width, 2 * a.component_router.width});
  bytes += int64_t{num_threads} * tiles * widest;
  bytes += int64_t{t.vocab_size} * 4 * (64 + 4);                          // logits
  bytes += t.context_length * (head_dim(t) + int64_t{64} * num_threads);  // rotations, attention scores
  return 2 * bytes + 4 * kMiB + num_threads * kMiB / 2;                   // allocator, stacks
}

int64_t mebibytes_up(int64_t bytes) { return (bytes + kMiB - 1) / kMiB; }

}  // namespace

std::vector<uint8_t> allowed_components(const Hierarchy& h, const std::vector<uint8_t>& allowed) {
  std::vector<uint8_t> domain_allowed(h.domains.size(), 1);
  const std::vector<int> routed = routed_domains(h);
  for (size_t m = 0; m < allowed.size(); ++m) domain_allowed[static_cast<size_t>(routed[m])] = allowed[m];
  std::vector<uint8_t> components;
  for (int owner : owner_of_components(h)) components.push_back(domain_allowed[static_cast<size_t>(owner)]);
  return components;
}

bool is_resident(const TensorSpec& spec, const Hierarchy& h, const std::vector<uint8_t>& allowed) {
  if (spec.part == Part::kComponent) return false;
  const std::vector<int> routed = routed_domains(h);
  for (size_t m = 0; m < allowed.size(); ++m) {
    if (!allowed[m] && spec.name == "component_router.heads." + h.domains[static_cast<size_t>(routed[m])].name)
      return false;
  }
  return true;
}

std::vector<FileRange> resident_ranges(const ModelFolder& model, const std::vector<uint8_t>& allowed) {
  std::vector<FileRange> ranges;
  for (const TensorSpec& spec : tensor_specs(model.architecture)) {
    const TensorInfo& tensor = model.weights->at(spec.name);
    if (is_resident(spec, model.architecture.hierarchy, allowed))
      ranges.push_back({static_cast<int64_t>(tensor.begin), static_cast<int64_t>(tensor.end)});
  }
  std::sort(ranges.begin(), ranges.end(), [](const FileRange& a, const FileRange& b) { return a.begin < b.begin; });
  std::vector<FileRange> joined;
  for (const FileRange& range : ranges) {
    if (!joined.empty() && range.begin <= whole_pages(joined.back().end)) {  // between them a pad at most
      joined.back().end = range.end;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

std::vector<FileRange> component_ranges(const ModelFolder& model) {
  const Architecture& a = model.architecture;
  const size_t n = static_cast<size_t>(num_components(a.hierarchy));
  std::vector<FileRange> ranges(n * static_cast<size_t>(num_component_layers(a)));
  for (const TensorSpec& spec : tensor_specs(a)) {
    if (spec.part != Part::kComponent) continue;
    const TensorInfo& tensor = model.weights->at(spec.name);
    const int64_t begin = static_cast<int64_t>(tensor.begin), end = static_cast<int64_t>(tensor.end);
    FileRange& range =
        ranges[static_cast<size_t>(spec.layer - a.trunk.num_dense_layers) * n + static_cast<size_t>(spec.index)];
    if (spec.page_start ? begin % kPageBytes != 0 : begin != range.end) {
      throw Error(
          ErrorCode::kData,
          fmt::format("{}: tensor '{}' is not where it can be read on demand: a component's tensors lie side by "
                      "side from a {}-byte boundary on",
                      model.weights->path().string(), spec.name, kPageBytes),
          "another program wrote the file; run it without --memory");
    }
    if (spec.page_start) range.begin = begin;
    range.end = end;
  }
  return ranges;
}

MemoryPlan plan_memory(const ModelFolder& model, const std::vector<uint8_t>& allowed, KvType kv_type, int num_threads,
                       int64_t budget_bytes, int64_t text_bytes) {
  const Architecture& a = model.architecture;
  MemoryPlan plan;
  plan.budget_bytes = budget_bytes;
  plan.process_bytes = rss_bytes();
  plan.text_bytes = text_bytes;
  for (const FileRange& range : resident_ranges(model, allowed))
    plan.resident_bytes += whole_pages(range.end) - range.begin / kPageBytes * kPageBytes;
  plan.cache_bytes = cache_bytes(a, kv_type);
  plan.scratch_bytes = scratch_bytes(a, num_threads);
  for (const FileRange& range : component_ranges(model))
    plan.slot_bytes = std::max(plan.slot_bytes, whole_pages(range.end - range.begin));
  for (uint8_t may_be_chosen : allowed_components(a.hierarchy, allowed))
    plan.num_components += may_be_chosen * num_component_layers(a);

  const int64_t fixed = plan.process_bytes + text_bytes + plan.resident_bytes + plan.cache_bytes + plan.scratch_bytes;
  // A layer's components of one token, and the next layer's beside them.
  const int64_t least_slots = std::min<int64_t>(plan.num_components, 2 * a.hierarchy.num_active);
  const int64_t smallest = std::max(peak_rss_bytes(), fixed + least_slots * plan.slot_bytes);
  if (budget_bytes > 0 && budget_bytes < smallest) {
    throw Error(
        ErrorCode::kUsage,
        fmt::format(
            "--memory: {} bytes can't hold {}: {} for the program and its text, {} always in memory, {} for keys and "
            "values, {} for a pass, {} for {} components",
            budget_bytes, model.path.string(), human_bytes(static_cast<double>(plan.process_bytes + text_bytes)),
            human_bytes(static_cast<double>(plan.resident_bytes)), human_bytes(static_cast<double>(plan.cache_bytes)),
            human_bytes(static_cast<double>(plan.scratch_bytes)),
            human_bytes(static_cast<double>(least_slots * plan.slot_bytes)), least_slots),
        fmt::format("the smallest that works here is --memory {}MiB", mebibytes_up(smallest) + 1));
  }
  plan.num_slots = plan.num_components;
  if (budget_bytes > 0 && plan.slot_bytes > 0)
    plan.num_slots = std::min(plan.num_slots, (budget_bytes - fixed) / plan.slot_bytes);
  return plan;
}

std::string to_text(const MemoryPlan& p) {
  const auto bytes = [](int64_t n) { return human_bytes(static_cast<double>(n)); };
  std::string text = fmt::format(
      "memory: {} at most ({} bytes)\n"
      "  {:>10}  the program, the tokenizer and the file's header\n"
      "  {:>10}  always in memory: trunk, embeddings, routers, base banks\n"
      "  {:>10}  keys and values of one text as long as the context\n"
      "  {:>10}  a pass of at most {} tokens\n",
      bytes(p.budget_bytes), p.budget_bytes, bytes(p.process_bytes), bytes(p.resident_bytes), bytes(p.cache_bytes),
      bytes(p.scratch_bytes), kBudgetPassTokens);
  if (p.text_bytes > 0)
    text += fmt::format("  {:>10}  text: its tokens and what is kept of each\n", bytes(p.text_bytes));
  text +=
      fmt::format("  {:>10}  {} of {} components", bytes(p.num_slots * p.slot_bytes), p.num_slots, p.num_components);
  if (p.num_slots < p.num_components) {
    text += fmt::format(
        "; the other {} are read on demand. What the domains in use pick most is kept (at first the\n"
        "              general domain's); at a text's start, while no domain is decided, any may be needed",
        bytes((p.num_components - p.num_slots) * p.slot_bytes));
  } else {
    text += ": all of them, each read once";
  }
  return text;
}

}  // namespace tessera::engine
