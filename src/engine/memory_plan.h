// --memory: what a model takes in memory, and what of it is read on demand so that all stays under a budget.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/model_file.h"
#include "core/tensor_names.h"
#include "kernels/row_ops.h"

namespace tessera::engine {

// With a budget a pass has at most so many tokens, and one text runs at a time.
inline constexpr int64_t kBudgetPassTokens = 128;

struct MemoryPlan {
  int64_t budget_bytes = 0;
  int64_t process_bytes = 0;   // held before: the program, its libraries, the tokenizer, the file's header
  int64_t text_bytes = 0;      // what is read to be scored, with its tokens
  int64_t resident_bytes = 0;  // always in memory: trunk, embeddings, routers, base banks
  int64_t cache_bytes = 0;     // keys and values of trunk and routers, of a text as long as the context
  int64_t scratch_bytes = 0;   // activations and logits of a pass, the recorded route
  int64_t slot_bytes = 0;      // room for any one component, in whole pages; 0: the model has none
  int64_t num_slots = 0;       // components in memory at a time
  int64_t num_components = 0;  // of all layers, of the domains that may be active
};

// True for the tensors that are always in memory: all but components and the planner heads of domains not allowed.
// `allowed` [M] may be empty (all).
bool is_resident(const TensorSpec& spec, const Hierarchy& hierarchy, const std::vector<uint8_t>& allowed);

// Which components may be chosen: [N] of 0/1.
std::vector<uint8_t> allowed_components(const Hierarchy& hierarchy, const std::vector<uint8_t>& allowed);

// A stretch of the file, read as one; it may begin inside a page.
struct FileRange {
  int64_t begin = 0, end = 0;
};
// The resident tensors by offset; those that are in the same or in neighbouring pages joined.
std::vector<FileRange> resident_ranges(const ModelFolder& model, const std::vector<uint8_t>& allowed);
// [L, N] of the component layers. Throws Error{kData} for a component that does not begin on a page or has a hole.
std::vector<FileRange> component_ranges(const ModelFolder& model);

// `budget_bytes` 0 plans without a limit; `text_bytes`: see MemoryPlan. Throws Error{kUsage} naming the smallest budget
// that works.
MemoryPlan plan_memory(const ModelFolder& model, const std::vector<uint8_t>& allowed, KvType kv_type, int num_threads,
                       int64_t budget_bytes, int64_t text_bytes = 0);

// For a person: one line for each part of the plan.
std::string to_text(const MemoryPlan& plan);

}  // namespace tessera::engine
