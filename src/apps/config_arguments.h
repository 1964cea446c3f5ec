// CONFIG [--key=value ...]: what train, estimate and demo take.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "core/config.h"

namespace tessera {

// Everything that CLI11 did not know must be a config override of the form --a.b=value.
inline std::vector<std::string> config_overrides(const CLI::App& command) {
  std::vector<std::string> overrides = command.remaining();
  for (const std::string& text : overrides) {
    if (text.starts_with("--") && text.find('=') != std::string::npos) continue;
    throw Error(ErrorCode::kUsage, "unknown argument '" + text + "'",
                "config keys are written --key=value, for example --train.steps=100");
  }
  return overrides;
}

}  // namespace tessera
