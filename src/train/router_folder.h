// A distilled level 1 on disk: config.json {"format": "tessera-router-1", "domain_router": {...}, "domains": [names in
// order], "vocab_size", "tokenizer_hash", "report"}, model.safetensors (the domain_router.* tensors of
// core/tensor_names) and, when there was a teacher, teacher/ (train/teacher.h).
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/tokenizer.h"
#include "train/parameters.h"

namespace tessera {

// Takes what belongs to level 1 out of `architecture` and `parameters`.
void save_router(const std::filesystem::path& folder, const Architecture& architecture, const Parameters& parameters,
                 const Tokenizer& tokenizer, const Json& report);

// Level 1's sizes, calibration and margin as the folder has them, for `architecture.domain_router`. Throws Error{kData}
// for what is no router folder, Error{kConfig} when its domains, width, depth, vocabulary or tokenizer aren't those
// given.
DomainRouter router_of_folder(const std::filesystem::path& folder, const Architecture& architecture,
                              const std::string& tokenizer_json);

// Copies its tensors into `parameters` (of an architecture with router_of_folder's level 1) and stops their gradients:
// a distilled level 1 is kept as it is.
void load_router(const std::filesystem::path& folder, const Parameters& parameters);

}  // namespace tessera
