#include "data/build.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/temporary_folder.h"
#include "base/threads.h"
#include "core/tokenizer.h"
#include "data/curate.h"
#include "data/input.h"
#include "data/shards.h"
#include "data/totals.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

constexpr int kPipelineVersion = 2;  // raised when curation changes, so that old sets are built anew

int64_t size_of(const Document& document) { return static_cast<int64_t>(document.text.size()); }

std::string inputs_hash(const BuildOptions& options, const std::vector<fs::path>& files,
                        const std::vector<fs::path>& against, const Tokenizer& tokenizer) {
  Json key = {{"version", kPipelineVersion},
              {"domain", options.domain},
              {"skip_bad", options.skip_bad},
              {"tokenizer", hash_hex(tokenizer.json())}};
  for (const fs::path& file : files) key["files"].push_back(hash_hex(MappedFile(file).bytes()));
  for (const fs::path& file : against) key["against"].push_back(hash_hex(MappedFile(file).bytes()));
  return hash_hex(key.dump());
}

// The report of the set that stands in OUT, if it was built from the same things.
std::optional<Json> reusable(const fs::path& out, const std::string& inputs) {
  if (!fs::exists(out)) return std::nullopt;
  const bool is_empty = fs::is_directory(out) && fs::is_empty(out);
  if (!is_empty && !(fs::exists(out / "index.json") && fs::exists(out / "report.json"))) {
    throw Error(ErrorCode::kFile, out.string() + " exists and is no data set", "choose another --out, or remove it");
  }
  if (is_empty) return std::nullopt;
  try {
    Json report = read_json_file(out / "report.json");
    if (report.value("inputs_hash", "") != inputs) return std::nullopt;
    if (ShardSet(out).hash() != report.value("data_hash", "")) return std::nullopt;
    for (const auto& [name, hash] : report.at("files").items()) {
      if (hash_hex(MappedFile(out / name).bytes()) != hash.get<std::string>()) return std::nullopt;
    }
    return report;
  } catch (const Error& e) {
    log_warn("{} is built anew: {}", out.string(), e.what());
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

// A domain that nothing can be learnt from is found here, not after an hour of training.
void check_domains(const std::vector<Document>& documents, const std::map<std::string, int64_t>& num_read) {
  std::map<std::string, int64_t> num_training;
  for (const Document& document : documents) num_training[document.domain] += document.split == "train";
  for (const auto& [domain, read] : num_read) {
    if (num_training[domain] >= 2) continue;
    throw Error(ErrorCode::kData,
                "the domain \"" + domain + "\" has " + std::to_string(num_training[domain]) +
                    " training documents after curation (" + std::to_string(read) +
                    " were read); at least 2 are needed",
                "the table above says what was dropped; add documents, or join the domain with another one");
  }
  if (num_read.empty())
    throw Error(ErrorCode::kData, "the input holds no documents to train on",
                "a line is {\"text\": \"...\", \"domain\": \"...\"}; \"split\": \"cross\" is for evaluation only");
}

// Tokenises documents in parallel, a slice at a time, and hands them over in order.
void encode_all(const std::vector<Document>& documents, const Tokenizer& tokenizer, int num_threads,
                const std::function<void(const Document&, const std::vector<int32_t>&)>& use) {
  constexpr size_t kSlice = 512;
  const double started = now_s();
  double bytes = 0;
  Progress progress("tokenise");
  for (size_t begin = 0; begin < documents.size(); begin += kSlice) {
    std::vector<std::vector<int32_t>> tokens(std::min(kSlice, documents.size() - begin));
    parallel_for(
        static_cast<int64_t>(tokens.size()),
        [&](int64_t i) {
          const auto index = static_cast<size_t>(i);
          tokens[index] = tokenizer.encode(documents[begin + index].text);
        },
        num_threads);
    for (size_t i = 0; i < tokens.size(); ++i) {
      bytes += static_cast<double>(size_of(documents[begin + i]));
      use(documents[begin + i], tokens[i]);
    }
    progress.update(static_cast<double>(begin + tokens.size()), static_cast<double>(documents.size()));
  }
  progress.finish(human_bytes(bytes) + ", " + human_bytes(bytes / std::max(1e-9, now_s() - started)) + "/s");
}

// Writes shards and evaluation files; returns the counts.
Totals write_set(const fs::path& folder, const std::vector<Document>& documents, const Tokenizer& tokenizer,
                 int num_threads) {
  std::map<std::string, int> domain_ids, source_ids;
  for (const Document& document : documents) {
    if (document.split != "train") continue;
    domain_ids[document.domain];
    source_ids[document.source];
  }
  const auto number = [](std::map<std::string, int>& ids) {
    std::vector<std::string> names;
    for (auto& [name, id] : ids) {
      id = static_cast<int>(names.size());
      names.push_back(name);
    }
    return names;
  };
  const auto domains = number(domain_ids), sources = number(source_ids);
  ShardWriter shards(folder, domains, sources, tokenizer.vocab_size(), tokenizer.bos(), hash_hex(tokenizer.json()));
  FileWriter heldout(folder / "heldout.jsonl.zst"), cross(folder / "cross.jsonl.zst");
  Totals totals;
  encode_all(documents, tokenizer, num_threads, [&](const Document& document, const std::vector<int32_t>& tokens) {
    totals.add(document.split, document.domain, document.source, {document.licence}, size_of(document),
               static_cast<int64_t>(tokens.size()));
    if (document.split == "train") {
      shards.add(tokens, domain_ids[document.domain], source_ids[document.source], size_of(document));
    } else {
      (document.split == "cross" ? cross : heldout).write(document_line(document) + "\n");
    }
  });
  heldout.close();
  cross.close();
  shards.close();
  write_file_atomic(folder / "tokenizer.json", tokenizer.json());
  return totals;
}

Json without(Json rows, const char* key) {
  for (Json& row : rows) row.erase(key);
  return rows;
}

std::string report_page(const Json& report) {
  const Json& input = report["input"];
  std::string page = "# Data set\n\n" + input["documents"].dump() + " documents read, " +
                     human_bytes(input["bytes"].get<double>()) + "; " + input["skipped_lines"].dump() +
                     " broken lines skipped.\n\n";
  page += "## By domain\n\n" + format_rows(report["domains"], true) + "\nLengths (longest, median) are in tokens.\n\n";
  page += "## By source\n\n" + format_rows(report["sources"], true) + "\n";
  page += "## What was dropped, and why\n\n" + format_rows(without(report["removals"], "samples"), true) + "\n";
  for (const Json& row : report["removals"]) {
    if (row["samples"].empty()) continue;
    page += "Samples of \"" + row["reason"].get<std::string>() + "\":\n\n";
    for (const Json& sample : row["samples"]) page += "    " + sample.get<std::string>() + "\n";
    page += "\n";
  }
  return page;
}

void replace_folder(const fs::path& folder, const fs::path& target) {
  const fs::path old = target.string() + ".old";
  fs::remove_all(old);
  if (fs::exists(target)) fs::rename(target, old);
  publish_folder(folder, target);
  fs::remove_all(old);
}

}  // namespace

Json build_data_set(const BuildOptions& options) {
  const double started = now_s();
  fs::path out = options.out.lexically_normal();
  if (!out.has_filename()) out = out.parent_path();  // "data/mine/": its neighbours are data/mine.tmp and .old
  const auto files = find_document_files(options.inputs);
  const Tokenizer tokenizer = Tokenizer::from_file(options.tokenizer);
  if (tokenizer.bos() < 0)
    throw Error(ErrorCode::kData, options.tokenizer.string() + " has no start token",
                "documents begin with one; choose another --tokenizer");
  const auto against_files = options.against.empty() ? std::vector<fs::path>{} : find_document_files(options.against);
  const std::string inputs = inputs_hash(options, files, against_files, tokenizer);
  if (auto report = reusable(out, inputs)) {
    log_info("{} is there already, built from the same inputs, options and tokenizer: reused", out.string());
    (*report)["reused"] = true;
    return *report;
  }

  // First of all: where it can't be written, nothing is worth reading.
  if (out.has_parent_path()) fs::create_directories(out.parent_path());
  const TemporaryFolder folder(out.string() + ".tmp");
  int64_t num_skipped = 0;
  auto documents = read_all_documents(files, options.skip_bad ? &num_skipped : nullptr, options.num_threads);
  if (num_skipped > 0) log_warn("{} broken lines skipped", num_skipped);
  std::map<std::string, int64_t> num_read;  // of each domain to train on
  int64_t bytes_read = 0;
  for (Document& document : documents) {
    if (document.domain.empty()) document.domain = options.domain;
    if (document.split != "cross") ++num_read[document.domain];
    bytes_read += size_of(document);
  }
  const auto documents_read = documents.size();
  CurationReport curation;
  clean_documents(documents, curation, options.num_threads);
  hold_out(documents);
  const auto against = read_all_documents(against_files, nullptr, options.num_threads);
  deduplicate_documents(documents, against, curation, options.num_threads);
  log_info("{}", format_rows(without(curation.json(), "samples")));
  check_domains(documents, num_read);

  const Totals totals = write_set(folder.path, documents, tokenizer, options.num_threads);
  Json report = {{"inputs_hash", inputs},
                 {"data_hash", ShardSet(folder.path).hash()},
                 {"tokenizer", {{"hash", hash_hex(tokenizer.json())}, {"vocab_size", tokenizer.vocab_size()}}},
                 {"input", {{"documents", documents_read}, {"bytes", bytes_read}, {"skipped_lines", num_skipped}}},
                 {"domains", totals.by_domain()},
                 {"sources", totals.by_source()},
                 {"removals", curation.json()}};
  for (const char* name : {"heldout.jsonl.zst", "cross.jsonl.zst", "tokenizer.json"}) {
    report["files"][name] = hash_hex(MappedFile(folder.path / name).bytes());
  }
  write_file_atomic(folder.path / "report.md", report_page(report));
  write_json_file(folder.path / "report.json", report);
  replace_folder(folder.path, out);
  log_info("{}", format_rows(report["domains"]));
  log_info("{}: built in {} ({}/s of raw text)", out.string(), human_seconds(now_s() - started),
           human_bytes(static_cast<double>(bytes_read) / std::max(1e-9, now_s() - started)));
  report["reused"] = false;
  return report;
}

Json data_set_stats(const fs::path& folder) {
  const ShardSet shards(folder);
  const Json report = read_json_file(folder / "report.json");
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> licences;  // of (domain, source) trained on
  for (const Json& row : report.value("sources", Json::array())) {
    if (row.value("split", "") == "train")
      licences[{row.value("domain", ""), row.value("source", "")}] = row.value("licences", std::vector<std::string>());
  }
  const Tokenizer tokenizer = shards.tokenizer();
  Totals totals;
  std::vector<int32_t> tokens;
  for (int domain = 0; domain < static_cast<int>(shards.domains().size()); ++domain) {
    for (int64_t i = 0; i < shards.num_documents(domain); ++i) {
      tokens.resize(static_cast<size_t>(shards.document_tokens(domain, i)));
      shards.read(domain, i, 0, static_cast<int64_t>(tokens.size()), tokens.data());
      int64_t bytes = 0;
      for (const int32_t token : tokens) bytes += static_cast<int64_t>(tokenizer.token_bytes(token).size());
      const std::string& domain_name = shards.domains()[static_cast<size_t>(domain)];
      const std::string& source = shards.sources()[static_cast<size_t>(shards.document_source(domain, i))];
      totals.add("train", domain_name, source, licences[{domain_name, source}], bytes,
                 static_cast<int64_t>(tokens.size()));
    }
  }
  for (const char* name : {"heldout.jsonl.zst", "cross.jsonl.zst"}) {
    const std::string expected = report.value("files", Json::object()).value(name, ""),
                      found = hash_hex(MappedFile(folder / name).bytes());
    if (expected != found) {
      throw Error(ErrorCode::kData,
                  (folder / name).string() + " is broken: hash: expected " + expected + ", found " + found,
                  "build the data set again: ./tessera data build");
    }
    const auto documents = read_all_documents({folder / name}, nullptr);
    encode_all(documents, tokenizer, 0, [&](const Document& document, const std::vector<int32_t>& encoded) {
      totals.add(document.split, document.domain, document.source, {document.licence}, size_of(document),
                 static_cast<int64_t>(encoded.size()));
    });
  }
  return {{"data_hash", shards.hash()},
          {"vocab_size", shards.vocab_size()},
          {"domains", totals.by_domain()},
          {"sources", totals.by_source()}};
}

}  // namespace tessera
