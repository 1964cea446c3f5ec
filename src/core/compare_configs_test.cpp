// configs/compare: the sizes that make the comparison fair. Totals count the whole model (core/cost_model.h).
#include <gtest/gtest.h>

#include "base/error.h"
#include "core/config.h"
#include "core/cost_model.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
const fs::path kFolder = fs::path(TESSERA_SOURCE_DIR) / "configs" / "compare";
const fs::path kPreviousToken = fs::path(TESSERA_SOURCE_DIR) / "configs" / "compare-previous-token";

Config variant(const std::string& name, const fs::path& folder = kFolder) {
  Config config = load_config(folder / (name + ".json"));
  config.model.trunk.vocab_size = 4096;
  return config;
}
double total(const std::string& name) { return static_cast<double>(count_parameters(variant(name).model).total()); }
double active(const std::string& name) { return static_cast<double>(count_parameters(variant(name).model).active()); }

std::vector<std::string> planned(const fs::path& folder = kFolder) {
  std::vector<std::string> names;
  const Json plan = read_json_file(folder / "plan.json");
  for (const auto& [group, json] : plan.items()) {
    if (!json.is_object()) continue;
    for (const auto& [name, unused] : json.at("variants").items()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());  // a variant may have more seeds in another group
  return names;
}

TEST(CompareConfigs, EachPlannedVariantHasOneFileAndEachFileIsPlanned) {
  for (const fs::path& folder : {kFolder, kPreviousToken}) {
    const std::vector<std::string> names = planned(folder);
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path().stem().string());
    for (const char* other : {"plan", "base", "ablation"}) std::erase(files, other);
    std::sort(files.begin(), files.end());
    EXPECT_EQ(names, files);
    for (const std::string& name : names) EXPECT_EQ(variant(name, folder).name, name);
  }
}

TEST(CompareConfigs, AllVariantsLearnAlikeFromTheSameBatches) {
  const Config base = variant("mhc-75-100"), ablation = variant("mhc-75-100-2m");
  EXPECT_GE(base.train.steps * base.train.batch_tokens, 5'000'000);
  EXPECT_GE(ablation.train.steps * ablation.train.batch_tokens, 2'000'000);
  for (const std::string& name : planned()) {
    Json json = to_json(variant(name));
    if (name == "no-domain-dropout") json["train"]["loss"]["domain_dropout"] = base.train.loss.domain_dropout;
    if (name.find("-balanced") != std::string::npos)
      json["train"]["loss"]["balance_rate"] = base.train.loss.balance_rate;
    if (name.ends_with("mixed-documents")) json["data"] = to_json(base)["data"];
    if (name == "no-splices") json["data"]["splice_share"] = base.data.splice_share;
    const bool core = json["train"]["steps"] == base.train.steps;
    const Json reference = to_json(core ? base : ablation);
    EXPECT_EQ(json["train"], reference["train"]) << name;
    EXPECT_EQ(json["data"], reference["data"]) << name;
    EXPECT_EQ(json["model"]["trunk"]["context_length"], reference["model"]["trunk"]["context_length"]) << name;
  }
}

TEST(CompareConfigs, CoreVariantsHaveTheStatedSizes) {
  EXPECT_LE(total("mhc-75-100"), 0.75 * total("flat-32"));
  EXPECT_GT(total("mhc-75-100"), 0.74 * total("flat-32"));
  EXPECT_GE(total("flat-24"), total("mhc-75-100"));
  for (const char* name : {"mhc-75-100", "flat-24", "sharing-no-hierarchy", "hierarchy-no-sharing", "dense-active",
                           "mhc-progressive", "mhc-trunk", "mhc-trunk-no-sharing", "flat-24-dense-first"})
    EXPECT_NEAR(active(name) / active("flat-32"), 1, 0.01) << name;
  EXPECT_NEAR(total("sharing-no-hierarchy") / total("mhc-75-100"), 1, 0.01);
  EXPECT_NEAR(total("hierarchy-no-sharing") / total("mhc-75-100"), 1, 0.01);
  EXPECT_LE(total("mhc-trunk"), 0.62 * total("flat-32"));
  EXPECT_NEAR(total("flat-24-dense-first") / total("mhc-trunk"), 1, 0.01);
  EXPECT_NEAR(total("mhc-trunk-no-sharing") / total("mhc-trunk"), 1, 0.01);
  EXPECT_NEAR(total("flat-64") / total("flat-32"), 1, 0.01);
  EXPECT_NEAR(active("flat-64") / active("flat-32"), 1, 0.015);  // its gate is twice as wide
  EXPECT_GT(total("flat-32-plan"), 1.33 * total("mhc-75-100"));  // "a third more parameters"
}

// The same criteria on a trunk that reads the token before: every variant on the same trunk, from the same batches.
TEST(CompareConfigs, VariantsThatReadTheTokenBeforeAreAsFair) {
  const Config mhc = variant("mhc-75-100", kPreviousToken), flat = variant("flat-32", kPreviousToken);
  const double flat_total = static_cast<double>(count_parameters(flat.model).total()),
               flat_active = static_cast<double>(count_parameters(flat.model).active()),
               mhc_total = static_cast<double>(count_parameters(mhc.model).total());
  EXPECT_LE(mhc_total, 0.75 * flat_total);
  EXPECT_GT(mhc_total, 0.74 * flat_total);
  for (const std::string& name : planned(kPreviousToken)) {
    const Config config = variant(name, kPreviousToken);
    Json trunk = to_json(config)["model"]["trunk"], reference = to_json(flat)["model"]["trunk"];
    for (Json* json : {&trunk, &reference}) {
      json->erase("num_dense_layers");
      json->erase("dense_width");
    }
    EXPECT_EQ(trunk, reference) << name;
    Json train = to_json(config)["train"];
    train["loss"]["balance_rate"] = flat.train.loss.balance_rate;
    EXPECT_EQ(train, to_json(flat)["train"]) << name;
    EXPECT_EQ(to_json(config)["data"], to_json(flat)["data"]) << name;
    const ParameterCount count = count_parameters(config.model);
    EXPECT_NEAR(static_cast<double>(count.active()) / flat_active, 1, name == "flat-32-plan" ? 0.02 : 0.01) << name;
    const double total = static_cast<double>(count.total());
    if (name == "flat-24") {
      EXPECT_GE(total, mhc_total);
    } else if (name == "hierarchy-no-sharing" || name == "sharing-no-hierarchy" || name == "flat-30-dense-first") {
      EXPECT_NEAR(total / mhc_total, 1, 0.01) << name;
    }
  }
}

TEST(CompareConfigs, AblationsHaveTheStatedSizes) {
  EXPECT_LE(total("mhc-75-75"), 0.75 * total("flat-32"));
  EXPECT_NEAR(active("mhc-75-75") / active("flat-32"), 0.75, 0.0075);
  EXPECT_LE(total("flat-32-narrow"), 0.75 * total("flat-32"));
  EXPECT_NEAR(total("flat-32-narrow") / total("mhc-75-75"), 1, 0.01);
  EXPECT_NEAR(total("dense-total") / total("mhc-75-100"), 1, 0.01);
  for (const char* name : {"always-on", "general-0", "general-16", "general-32", "fine-128-8", "coarse",
                           "always-on-only", "prior", "less-sharing", "shared-by-two"}) {
    EXPECT_LE(total(name), 0.75 * total("flat-32")) << name;
    EXPECT_NEAR(active(name) / active("flat-32"), 1, 0.01) << name;
  }
  EXPECT_NEAR(active("distilled-level1") / active("flat-32"), 1, 0.01);
  for (const char* name : {"less-sharing", "shared-by-two"}) {
    EXPECT_NEAR(total(name) / total("hierarchy-no-sharing"), 1, 0.005) << name;
    EXPECT_NEAR(active(name) / active("hierarchy-no-sharing"), 1, 0.01) << name;
  }
  for (const std::string size : {"d128", "d256"}) {
    EXPECT_LE(total("mhc-75-100-" + size), 0.75 * total("flat-32-" + size));
    EXPECT_NEAR(active("mhc-75-100-" + size) / active("flat-32-" + size), 1, 0.01);
    EXPECT_LE(total("mhc-trunk-" + size), 0.62 * total("flat-32-" + size));
    EXPECT_NEAR(active("mhc-trunk-" + size) / active("flat-32-" + size), 1, 0.01);
  }
}

// A result of another config than its variant's file holds now is stale, and `compare` would refuse it.
TEST(CompareConfigs, CommittedResultsAreOfTheseConfigs) {
  int groups = 0;
  for (const auto& report : fs::directory_iterator(fs::path(TESSERA_SOURCE_DIR) / "reports")) {
    const fs::path results = report.path() / "results", group = report.path().filename();
    if (!fs::exists(results)) continue;
    ++groups;
    for (const auto& entry : fs::directory_iterator(results)) {
      const Json result = read_json_file(entry.path());
      Json now =
          to_json(load_config(kFolder.parent_path() / group / (result.at("variant").get<std::string>() + ".json")));
      Json then = to_json(config_from_json(result.at("config")));
      for (Json* config : {&now, &then}) {
        config->erase("name");
        for (const char* key : {"seed", "num_threads", "device", "eval_every", "eval_bytes", "checkpoint_every",
                                "keep_checkpoints", "log_every"})
          (*config)["train"].erase(key);
      }
      EXPECT_EQ(then, now) << entry.path();
    }
  }
  EXPECT_GE(groups, 3);
}

// The widths in the files are those that solve_widths finds.
TEST(CompareConfigs, WidthsAreSolved) {
  const std::pair<std::string, double> solved[] = {
      {"mhc-75-100", 1}, {"mhc-75-75", 0.75}, {"fine-128-8", 1}, {"coarse", 1}, {"always-on", 1}};
  for (const auto& [name, active_share] : solved) {
    const Architecture found = variant(name).model;
    const Architecture wanted = solve_widths(found, variant("flat-32").model, 0.75, active_share).architecture;
    EXPECT_EQ(found.hierarchy.base_width, wanted.hierarchy.base_width) << name;
    EXPECT_EQ(found.hierarchy.unique_width, wanted.hierarchy.unique_width) << name;
  }
}

}  // namespace
}  // namespace tessera
