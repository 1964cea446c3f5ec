// A picture of who serves whom: an SVG heat map of component use by domain of the text.
#pragma once
#include <string>

#include "base/json.h"
#include "core/hierarchy.h"

namespace tessera {

// `statistics` is RouteStatistics::to_json(): a row a text domain, a column a component, grouped by owner; colour is
// the component's share of the row's picks. Throws Error{kData} when it has no "domain_components" of these components
// (a run of an older version).
std::string heat_map_svg(const Json& statistics, const Hierarchy& hierarchy);

}  // namespace tessera
