// Rules that a document must meet, after Gopher's (Rae et al. 2021, appendix A) with limits for each kind of text.
#pragma once
#include <string_view>

#include "data/clean.h"

namespace tessera {

// Why the (cleaned) text should not be learnt from: a fixed phrase for the report, or nullptr when nothing is wrong.
const char* quality_fault(std::string_view text, TextKind kind);

}  // namespace tessera
