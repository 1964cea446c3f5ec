#include "train/add_domain.h"

#include <algorithm>

#include "base/error.h"

namespace tessera {

Architecture with_domain(const Architecture& architecture, const std::string& name) {
  Architecture a = architecture;
  Hierarchy& h = a.hierarchy;
  if (h.domains.empty()) {
    throw Error(ErrorCode::kConfig, "--add-domain " + name + ": the model is dense and has no domains");
  }
  const bool is_there =
      std::any_of(h.domains.begin(), h.domains.end(), [&](const Domain& d) { return d.name == name; });
  if (is_there) throw Error(ErrorCode::kConfig, "--add-domain " + name + ": the model has that domain already");
  if (a.domain_router.kind == "none") {
    throw Error(ErrorCode::kConfig,
                "--add-domain " + name + ": the model has one domain and no level 1 to tell a second from it",
                "train it with model.domain_router.kind=encoder and two domains");
  }
  const Domain& last = h.domains[static_cast<size_t>(routed_domains(h).back())];
  const int first = num_components(h);
  const Domain added{name, last.num_components, false, {}, true};
  if (!h.base.empty()) {
    for (int c = first; c < first + added.num_components; ++c) h.base.push_back(c % h.num_banks);
  }
  h.domains.push_back(added);
  return a;
}

OldWeights::OldWeights(const ModelFolder& old, const Parameters& parameters) {
  const at::NoGradGuard no_grad;
  const Parameters before(old);
  for (const ParameterSpec& spec : before.specs()) {
    const at::Tensor& value = before[spec.name];
    at::Tensor parameter = parameters[spec.name];
    const int64_t rows = value.size(0);
    const bool grows = parameter.size(0) > rows;
    TESSERA_CHECK(grows || parameter.sizes() == value.sizes(), spec.name + " grew in another dimension");
    parameter.narrow(0, 0, rows).copy_(value);
    // The whole tensor is old, and no gradient is wanted; of a grown one the old rows are put back after each update.
    if (grows || spec.buffer) {
      rows_.push_back({spec.name, value.detach().to(parameter.device())});
    } else {
      parameter.set_requires_grad(false);
    }
  }
}

void OldWeights::restore(const Parameters& parameters) const {
  const at::NoGradGuard no_grad;
  for (const Rows& rows : rows_) parameters[rows.name].narrow(0, 0, rows.value.size(0)).copy_(rows.value);
}

void OldWeights::take_from(const Parameters& parameters) {
  for (Rows& rows : rows_) rows.value = parameters[rows.name].detach().narrow(0, 0, rows.value.size(0)).clone();
}

}  // namespace tessera
