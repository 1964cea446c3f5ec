// Distillation of level 1 (DESIGN section 3): a teacher is fine-tuned on labelled windows, the student learns from its
// soft labels and from the hard ones. Sources kept apart tell which of its steps to keep; then temperature, floor and
// margin are fitted on them. The result is a router folder (train/router_folder.h).
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "core/config.h"

namespace tessera {

struct DistilOptions {
  std::filesystem::path out;                     // the router's folder
  std::optional<std::filesystem::path> teacher;  // a folder of weights; none: hard labels alone
};

// Needs model.domain_router.kind "encoder" with own_embedding. Returns the report. Throws Error{kConfig} when the
// config's domains aren't the data's labels, Error{kData} when its texts are too short for a decision,
// Error{kDiverged}.
Json distil(Config config, const DistilOptions& options);

}  // namespace tessera
