// The report of a run as one HTML page: no request leaves it, and what a model or a corpus wrote stays text.
//
// What the page reads; whatever is missing leaves its part of the page out:
//   "title", "summary", "date", "machine", "commit"     strings
//   "seconds", "tokens", "bytes"                        of training, in all
//   "config"           the run's, resolved (domains, components and their names are taken from config.model.hierarchy)
//   "model"            as `estimate --json`: {"total_parameters", "active_parameters", "flat_total_parameters",
//                      "flat_active_parameters", "parts": {name: {"total", "active"}}, "flat_parts"}
//   "history"          [{"step", "tokens", "loss", "bpb", "lr", "tokens_per_s", "load": {text domain: {owner: share}}}]
//   "evaluations"      [{"step", "tokens", "bpb": {domain: x}, "bpb_all": x}] while training
//   "final"            {"bpb", "bpb_all"} of the whole held-out text; else the last of "evaluations" counts
//   "trigram"          {"bpb", "bpb_all"} on the same text as "final"
//   "route_statistics" as RouteStatistics::to_json (data/route_statistics.h)
//   "samples"          [{"domain", "prompt_tokens": n, "tokens": [bytes of each token], "route": to_json(Route)}]; the
//                      start token is a token, of no bytes, and counts for the prompt: tokens and route begin with it.
//                      The route may lack the last token. A character cut between tokens is shown with its last one
//   "data"             report.json of the data folder: {"sources": [{"source", "domain", "split", "licences",
//                      "documents", "bytes", "tokens"}], "removals": [{"step", "reason", "documents", "bytes",
//                      "samples"}]}
//   "commands"         [{"what", "command"}] under "How to go on"
#pragma once
#include <filesystem>

#include "base/json.h"

namespace tessera {

// Throws Error{kFile} when `out` can't be written.
void write_report_page(const std::filesystem::path& out, const Json& report);

// The atlas of a model's components (data/atlas.h: what build_atlas gives, with "title", "model", "date", "commit",
// "machine"), from the same style sheet and figures.
void write_atlas_page(const std::filesystem::path& out, const Json& atlas);

}  // namespace tessera
