// tessera eval, score and perplexity: what the engine's model thinks of given text.
#include <cmath>
#include <iostream>

#include "apps/commands.h"
#include "apps/engine_arguments.h"
#include "apps/evaluate_file.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/peak_memory.h"
#include "base/threads.h"
#include "core/safetensors.h"
#include "data/evaluate.h"
#include "engine/scorer.h"

namespace tessera {
namespace {

// A line of `score`: tokens, or {"tokens", "route"} to replay a route.
struct ScoreLine {
  std::vector<int32_t> tokens;
  std::optional<Route> route;
};

ScoreLine parse_score_line(const std::string& line, const std::string& where, const Architecture& a) {
  const Json json = parse_json(line, where);
  const Json& list = json.is_object() && json.contains("tokens") ? json["tokens"] : json;
  ScoreLine parsed;
  if (!list.is_array() || list.empty() || !std::all_of(list.begin(), list.end(), [](const Json& t) {
        return t.is_number_integer() && t.get<int64_t>() >= 0 && t.get<int64_t>() <= INT32_MAX;
      })) {
    throw Error(ErrorCode::kData, where + ": expected an array of token ids");
  }
  parsed.tokens = list.get<std::vector<int32_t>>();
  if (json.is_object() && json.contains("route")) {
    parsed.route = route_from_json(json["route"], a);
    if (parsed.route->num_tokens != static_cast<int>(parsed.tokens.size()))
      throw Error(ErrorCode::kData, where + ": the route is of another number of tokens");
  }
  return parsed;
}

void run_score(const EngineArguments& args, const std::string& out) {
  ModelFolder folder = open_model(args.model);
  engine::EngineOptions options;
  options.num_threads = args.threads;
  engine::Engine engine(std::move(folder), options);
  const int64_t vocab = engine.vocab_size();
  std::vector<std::vector<float>> logits;
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    const ScoreLine given =
        parse_score_line(line, "standard input, line " + std::to_string(++number), engine.architecture());
    engine::Sequence sequence = engine.new_sequence(true);
    if (given.route) sequence.replay = &*given.route;
    const engine::Segment segment = {&sequence, given.tokens, engine::Outputs::kAll};
    const std::span<const float> hidden = engine.forward({&segment, 1});
    logits.emplace_back(given.tokens.size() * static_cast<size_t>(vocab));
    engine.logits(hidden, logits.back().data());
    std::cout << Json{{"tokens", given.tokens.size()}, {"route", to_json(sequence.route)}}.dump() << "\n";
    if (out.empty()) logits.pop_back();
  }
  if (out.empty()) return;
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < logits.size(); ++i) {
    tensors.push_back({"text." + std::to_string(i),
                       "F32",
                       {static_cast<int64_t>(logits[i].size()) / vocab, vocab},
                       std::as_bytes(std::span(logits[i]))});
  }
  write_safetensors(out, tensors, {});
}

void run_eval(const EngineArguments& args, const std::string& data, int64_t max_bytes, bool json) {
  LoadedEngine loaded = load_engine(args, data);
  engine::EngineScorer scorer(*loaded.engine);
  evaluate_file(scorer, loaded.tokenizer, loaded.engine->architecture().hierarchy, data, max_bytes,
                loaded.engine->allows_all_domains(), json);
}

void run_perplexity(const EngineArguments& args, const std::string& file, int64_t max_tokens, bool json) {
  LoadedEngine loaded = load_engine(args, file);
  const std::string text = read_file(file);
  std::vector<int32_t> tokens = loaded.tokenizer.encode(text);
  if (max_tokens > 0 && tokens.size() > static_cast<size_t>(max_tokens)) tokens.resize(static_cast<size_t>(max_tokens));
  const int32_t bos = loaded.tokenizer.bos();
  size_t bytes = 0;
  for (const int32_t token : tokens) bytes += loaded.tokenizer.token_bytes(token).size();
  const size_t window = static_cast<size_t>(std::min(loaded.engine->context_length(), 2048)) - (bos >= 0 ? 1 : 0);
  double nats = 0;
  int64_t count = 0;
  Progress progress("perplexity");
  engine::EngineScorer scorer(*loaded.engine);
  for (size_t begin = 0; begin < tokens.size(); begin += window) {
    std::vector<int32_t> piece(tokens.begin() + static_cast<int64_t>(begin),
                               tokens.begin() + static_cast<int64_t>(std::min(tokens.size(), begin + window)));
    if (bos >= 0) piece.insert(piece.begin(), bos);
    if (piece.size() < 2) continue;
    const std::vector<ScoredText> scored = scorer.score({&piece, 1});  // named: it must outlive the loop
    for (const float log_prob : scored[0].log_probs) {
      nats -= log_prob;
      ++count;
    }
    progress.update(static_cast<double>(begin), static_cast<double>(tokens.size()));
  }
  progress.finish();
  if (count == 0) throw Error(ErrorCode::kData, file + " has too little text");
  const double perplexity = std::exp(nats / static_cast<double>(count));
  const double bpb = nats / std::log(2.0) / static_cast<double>(bytes);
  std::cout << fmt::format("perplexity {:.4f}, {:.4f} bits per byte, {} tokens in windows of {}\n", perplexity, bpb,
                           count, window);
  if (json)
    std::cout << Json{{"perplexity", perplexity}, {"bpb", bpb}, {"tokens", count}, {"peak_rss_bytes", peak_rss_bytes()}}
                     .dump()
              << "\n";
}

}  // namespace

void add_score_command(CLI::App& app) {
  struct Arguments {
    EngineArguments engine;
    std::string out;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("score", "Logits and routes of given tokens, for comparison with other programs");
  command->add_option("MODEL_OR_RUN", args->engine.model, "a model folder or a run")->required();
  command->add_option("--threads", args->engine.threads, "0: all CPUs")->check(CLI::Range(0, kMostThreads));
  command->add_option("--logits", args->out, "write the logits of every text here (safetensors: text.0 [T, V], ...)");
  command->footer(
      "Example: echo '[0, 17, 42]' | ./tessera score runs/demo --logits logits.safetensors\n"
      "Reads one JSON array of token ids a line, or {\"tokens\", \"route\"} to replay a route; prints one JSON object "
      "a\n"
      "line with the route.");
  command->callback([args] { run_score(args->engine, args->out); });
}

void add_eval_command(CLI::App& app) {
  struct Arguments {
    EngineArguments engine;
    std::string data;
    int64_t max_bytes = 0;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "Bits per byte by domain on labelled documents");
  add_engine_options(*command, args->engine);
  command->add_option("--data", args->data, "FILE.jsonl or .jsonl.zst of {\"text\", \"domain\"}")->required();
  command->add_option("--max-bytes", args->max_bytes, "of each domain, its sources alike; 0: everything")
      ->check(at_least(0));
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer(
      "Example: ./tessera eval runs/demo --data data/small/built/heldout.jsonl.zst --max-bytes 500000\n"
      "More: ./tessera eval --suite routing --help (is level 1 right; what mixed text costs)");
  command->callback([args] { run_eval(args->engine, args->data, args->max_bytes, args->json); });
}

void add_perplexity_command(CLI::App& app) {
  struct Arguments {
    EngineArguments engine;
    std::string file;
    int64_t max_tokens = 0;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("perplexity", "Perplexity and bits per byte of a text file");
  add_engine_options(*command, args->engine);
  command->add_option("FILE", args->file, "plain text; windows of the context length (at most 2,048) don't overlap")
      ->required();
  command->add_option("--max-tokens", args->max_tokens, "of the file's beginning; 0: all")->check(at_least(0));
  command->add_flag("--json", args->json, "last line: one JSON object");
  command->footer("Example: ./tessera perplexity models/smollm2 README.md");
  command->callback([args] { run_perplexity(args->engine, args->file, args->max_tokens, args->json); });
}

}  // namespace tessera
