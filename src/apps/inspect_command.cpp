// tessera inspect: what a model holds and, for a run, how its components were used.
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <memory>
#include <set>

#include "apps/commands.h"
#include "apps/heat_map.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "core/config.h"
#include "core/model_file.h"
#include "core/tensor_names.h"

namespace tessera {
namespace {

struct InspectOptions {
  std::string path, svg;
  bool json = false;
};

constexpr int kMostRows = 64;  // of components or banks on a screen; --json has all

struct Size {
  int64_t parameters = 0, bytes = 0;
  void operator+=(const Size& other) { parameters += other.parameters, bytes += other.bytes; }
};

// Summed over all layers.
struct Sizes {
  std::map<std::string, Size> parts;    // by part_name
  std::vector<Size> components, banks;  // [N], [G]
  std::map<std::string, Size> domains;  // components and planner heads: what leaving the domain out saves
  Size all;
  std::set<std::string> dtypes;
};

Sizes measure(const ModelFolder& model) {
  const Hierarchy& h = model.architecture.hierarchy;
  const std::vector<int> owner = owner_of_components(h);
  Sizes sizes;
  sizes.components.resize(owner.size());
  sizes.banks.resize(static_cast<size_t>(h.num_banks));
  for (const TensorSpec& spec : tensor_specs(model.architecture)) {
    const TensorInfo& tensor = model.weights->at(spec.name);
    const Size size = {num_elements(spec.shape), static_cast<int64_t>(tensor.end - tensor.begin)};
    sizes.parts[part_name(spec.part)] += size;
    sizes.all += size;
    sizes.dtypes.insert(tensor.dtype);
    if (spec.part == Part::kBank) sizes.banks[static_cast<size_t>(spec.index)] += size;
    if (spec.part == Part::kComponent) {
      const size_t component = static_cast<size_t>(spec.index);
      sizes.components[component] += size;
      sizes.domains[h.domains[static_cast<size_t>(owner[component])].name] += size;
    }
    for (const Domain& d : h.domains) {
      if (spec.name == "component_router.heads." + d.name) sizes.domains[d.name] += size;
    }
  }
  return sizes;
}

// The domains whose components use the bank, and how many do.
std::vector<std::string> users_of_bank(const Hierarchy& h, int bank) {
  std::vector<int> users(h.domains.size(), 0);
  const std::vector<int> owner = owner_of_components(h);
  for (size_t c = 0; c < owner.size(); ++c)
    users[static_cast<size_t>(owner[c])] += bank_of(h, static_cast<int>(c)) == bank;
  std::vector<std::string> texts;
  for (size_t d = 0; d < users.size(); ++d) {
    if (users[d] > 0) texts.push_back(fmt::format("{} {}", h.domains[d].name, users[d]));
  }
  return texts;
}

void print_size(const std::string& name, const Size& size, const Size& all, const std::string& note = "") {
  std::cout << fmt::format("  {:<26}{:>9}{:>12}{:>8.1f} %  {}\n", name,
                           human_count(static_cast<double>(size.parameters)),
                           human_bytes(static_cast<double>(size.bytes)),
                           100.0 * static_cast<double>(size.bytes) / static_cast<double>(all.bytes), note);
}

void print_sizes(const Hierarchy& h, const Sizes& sizes) {
  std::cout << fmt::format("\n  {:<26}{:>9}{:>12}{:>10}\n", "part", "numbers", "bytes", "share");
  for (const auto& [name, size] : sizes.parts) print_size(name, size, sizes.all);
  print_size("all", sizes.all, sizes.all, fmt::format("{}", fmt::join(sizes.dtypes, ", ")));
  if (h.domains.empty()) return;
  std::cout << "\n  domain (its components and planner head: what leaving it out saves)\n";
  for (const Domain& d : h.domains) {
    print_size(d.name, sizes.domains.at(d.name), sizes.all,
               fmt::format("{} components a layer{}", d.num_components, d.always ? ", general: in every text" : ""));
  }
  if (h.num_banks > 0) std::cout << "\n  base bank (all layers) and the components that share it\n";
  for (int g = 0; g < std::min(h.num_banks, kMostRows); ++g) {
    print_size(fmt::format("bank {}", g), sizes.banks[static_cast<size_t>(g)], sizes.all,
               fmt::format("{}", fmt::join(users_of_bank(h, g), ", ")));
  }
  if (h.num_banks > kMostRows) std::cout << fmt::format("  and {} more\n", h.num_banks - kMostRows);
  const int n = num_components(h);
  std::cout << "\n  component (all layers)\n";
  for (int c = 0; c < std::min(n, kMostRows); ++c) {
    print_size(fmt::format("{:<4}{}", c, component_name(h, c)), sizes.components[static_cast<size_t>(c)], sizes.all,
               h.num_banks > 0 ? fmt::format("bank {}", bank_of(h, c)) : "");
  }
  if (n > kMostRows) std::cout << fmt::format("  and {} more of the same size\n", n - kMostRows);
}

// The newest line of a run's metrics that has `key`; null when none has. A line cut short by a crash is passed over.
Json newest_line_with(const std::filesystem::path& metrics, const std::string& key) {
  Json newest;
  if (!std::filesystem::exists(metrics)) return newest;
  read_lines(metrics, [&](std::string_view text, int64_t) {
    Json line = Json::parse(text, nullptr, false);
    if (line.is_object() && line.contains(key)) newest = std::move(line);
    return true;
  });
  return newest;
}

void print_load(const Json& line) {
  std::cout << fmt::format(
      "\n  load at step {}: of a domain's text (row), the share of picks that each domain's components got\n",
      line.value("step", Json(0)).dump());
  bool is_first = true;
  for (const auto& [text, owners] : line["load"].items()) {
    if (!owners.is_object()) continue;
    if (is_first) {
      std::cout << fmt::format("  {:<14}", "");
      for (const auto& [owner, share] : owners.items()) std::cout << fmt::format("{:>14}", owner);
      std::cout << '\n';
      is_first = false;
    }
    std::cout << fmt::format("  {:<14}", text);
    for (const auto& [owner, share] : owners.items()) {
      std::cout << fmt::format("{:>12.1f} %", share.is_number() ? 100 * share.get<double>() : 0.0);
    }
    std::cout << '\n';
  }
}

// `routes`: {"entropy": [L], "dead_components": n}, of an evaluation or of a step.
void print_use(const Json& routes) {
  if (routes.contains("dead_components")) {
    std::cout << "  dead components: " << routes["dead_components"].dump() << " (summed over layers)\n";
  }
  if (!routes.contains("entropy") || !routes["entropy"].is_array()) return;
  std::cout << "  entropy of the picks by layer, 1 when all components are used alike:";
  for (const Json& entropy : routes["entropy"]) {
    std::cout << fmt::format(" {:.3f}", entropy.is_number() ? entropy.get<double>() : 0.0);
  }
  std::cout << '\n';
}

Json size_json(const Size& size) { return {{"parameters", size.parameters}, {"bytes", size.bytes}}; }

Json report(const ModelFolder& model, const Sizes& sizes) {
  const Hierarchy& h = model.architecture.hierarchy;
  Json json = {{"path", model.path.string()},
               {"model", to_json(model.architecture)},
               {"parameters", sizes.all.parameters},
               {"bytes", sizes.all.bytes},
               {"dtypes", sizes.dtypes},
               {"parts", Json::object()},
               {"domains", Json::object()},
               {"banks", Json::array()},
               {"components", Json::array()}};
  for (const auto& [name, size] : sizes.parts) json["parts"][name] = size_json(size);
  for (const Domain& d : h.domains) json["domains"][d.name] = size_json(sizes.domains.at(d.name));
  for (size_t g = 0; g < sizes.banks.size(); ++g) {
    json["banks"].push_back(size_json(sizes.banks[g]));
    json["banks"].back()["users"] = users_of_bank(h, static_cast<int>(g));
  }
  for (size_t c = 0; c < sizes.components.size(); ++c) {
    json["components"].push_back(size_json(sizes.components[c]));
    json["components"].back()["name"] = component_name(h, static_cast<int>(c));
    json["components"].back()["bank"] = bank_of(h, static_cast<int>(c));
  }
  return json;
}

void run_inspect(const InspectOptions& options) {
  const ModelFolder model = open_model(options.path);
  const Sizes sizes = measure(model);
  const Trunk& t = model.architecture.trunk;
  std::cout << fmt::format(
      "{}\n  {} layers, width {}, {} query and {} key/value heads of {}, vocabulary {}, context {}\n",
      model.path.string(), t.num_layers, t.width, t.num_heads, t.num_kv_heads, head_dim(t), t.vocab_size,
      t.context_length);
  print_sizes(model.architecture.hierarchy, sizes);
  Json json = report(model, sizes);
  const std::filesystem::path metrics = std::filesystem::path(options.path) / "metrics.jsonl";
  if (const Json line = newest_line_with(metrics, "load"); line.is_object() && line["load"].is_object()) {
    print_load(line);
    json["load"] = line["load"];
  }
  if (const Json line = newest_line_with(metrics, "route_statistics");
      line.is_object() && line["route_statistics"].is_object()) {
    print_use(line["route_statistics"]);
    json["route_statistics"] = line["route_statistics"];
    if (line["route_statistics"].contains("domain_components")) {
      const std::filesystem::path svg = options.svg.empty() ? std::filesystem::path(options.path) / "component_use.svg"
                                                            : std::filesystem::path(options.svg);
      try {
        write_file_atomic(svg, heat_map_svg(line["route_statistics"], model.architecture.hierarchy));
        std::cout << "  heat map of component use: " << svg.string() << '\n';
        json["heat_map"] = svg.string();
      } catch (const Error& e) {  // a model that may only be read can be inspected all the same
        if (!options.svg.empty()) throw;
        log_warn("no heat map of component use: {}; --svg FILE puts it elsewhere", e.what());
      }
    }
  }
  if (!options.svg.empty() && !json.contains("heat_map")) {
    throw Error(ErrorCode::kUsage,
                "--svg: " + options.path + " is no run with route statistics, so there is no use to draw",
                "a run has them after its first evaluation");
  }
  if (options.json) std::cout << json.dump() << '\n';
  std::cout.flush();
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "Architecture and sizes of a model by domain, component and bank; load of a run");
  command->add_option("model", options->path, "A model folder or a run")->required();
  command->add_option("--svg", options->svg, "Where a run's heat map of component use goes (RUN/component_use.svg)");
  command->add_flag("--json", options->json, "The last line is one JSON object");
  command->footer(
      "Example:\n  ./tessera inspect runs/demo\n  ./tessera inspect runs/demo --atlas   what each component is for: a "
      "page (it runs "
      "the model)");
  command->callback([options] { run_inspect(*options); });
}

}  // namespace tessera
