// The route: what both routers decided for a text. Routers fill it; component layers, replay, engine, server and
// pictures read it. DESIGN sections 2 and 3.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"

namespace tessera {

// For one text of T tokens, C chunks, M routed domains, L component layers, K active components.
struct Route {
  int num_tokens = 0, num_domains = 0, num_layers = 0, num_active = 0;
  std::vector<int32_t> chunk_starts_C;  // first token of each chunk
  std::vector<float> pi_CM;             // level 1's distribution in force in the chunk
  std::vector<uint8_t> active_CM;       // 1: the domain's components are eligible in the chunk
  std::vector<int32_t> components_TLK;  // ids, global in a layer, domain-major
  std::vector<float> weights_TLK;       // sum to 1 over K (K = 1: the share of the softmax over all eligible)
};

// Index of the chunk that holds a token of the route.
size_t chunk_at(const Route& route, int64_t token);

Json to_json(const Route& route);
// Throws Error{kData} when sizes don't match or an id is out of range for the architecture.
Route route_from_json(const Json& json, const Architecture& architecture);

// First tokens of the chunks of a document of `num_tokens` (its bos is token 0): 0, 16, 64, then every chunk_tokens.
// (With chunk_tokens below 64: 0, 16, then multiples of chunk_tokens.)
std::vector<int32_t> chunk_starts(int num_tokens, int chunk_tokens);
// Index of the chunk that holds a position of the document, consistent with chunk_starts.
int chunk_of(int position, int chunk_tokens);

// Which domains are active in the next chunk: the most probable, and the second when it is near. The second enters when
// pi1 - pi2 < margin, and one that was active leaves above margin + hysteresis. One function for training and
// inference. `previous` is empty when there was no decision before (start of a document): hysteresis then does not
// apply. `allowed` may be empty (all). `added` (none when empty): domains that are active as the most probable one
// only, from a probability of 1/2 on, never as the second. Returns [M] of 0/1.
std::vector<uint8_t> active_domains(std::span<const float> pi, std::span<const uint8_t> previous,
                                    std::span<const uint8_t> allowed, double margin, double hysteresis,
                                    std::span<const uint8_t> added = {});

// Level 1's logits [M] become pi: softmax(logits / temperature), `floor` taken off each and the rest made to sum to 1;
// among the domains that are allowed, as if the model had no others: theirs is 0. All zeros when every domain is
// barred. `allowed` may be empty (all).
void logits_to_pi(std::span<float> logits, const DomainRouter& router, std::span<const uint8_t> allowed = {});

// Which routed domains were added to the trained model [M].
std::vector<uint8_t> added_domains(const Hierarchy& hierarchy);

// pi [M] among the domains that are allowed: the others' is 0, and the rest sums to 1 (is uniform where nothing was
// left of it). All zeros when every domain is barred. `allowed` may be empty (all).
// For labels and draws; level 1's own decision takes `allowed` before its softmax (logits_to_pi).
void restrict_to_allowed(std::span<float> pi, std::span<const uint8_t> allowed);

// pi [M] before the first decision of a text: uniform over the domains that are allowed and, where there are others,
// not `added`. Those of them are active. All zeros when every domain is barred.
std::vector<float> undecided_pi(const Architecture& architecture, std::span<const uint8_t> allowed);

// No decision yet: pi is uniform over the domains that are not barred, if there are several.
bool is_undecided(std::span<const float> pi);

// Which routed domains may be active [M]: those named in `allow` (all when it is empty) but not in `deny`; empty when
// none is barred. Throws Error{kUsage} beginning with `what` for a name that isn't a routed domain or is in both lists,
// and when too few components are left to choose num_active from: with all domains denied only a general domain can
// serve.
std::vector<uint8_t> allowed_domains(const Hierarchy& hierarchy, const std::vector<std::string>& allow,
                                     const std::vector<std::string>& deny, const std::string& what);

}  // namespace tessera
