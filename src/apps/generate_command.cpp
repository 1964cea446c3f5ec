// tessera generate: text from a model, the route beside it.
#include <unistd.h>

#include <iostream>

#include "apps/commands.h"
#include "apps/engine_arguments.h"
#include "apps/route_text.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/peak_memory.h"
#include "engine/generate.h"

namespace tessera {

namespace {

std::shared_ptr<const engine::Grammar> load_grammar(const std::string& name) {
  return std::make_shared<const engine::Grammar>(name == "json" ? engine::Grammar::json()
                                                                : engine::Grammar::parse(read_file(name), name));
}

}  // namespace

void add_generate_command(CLI::App& app) {
  struct Arguments {
    EngineArguments engine;
    std::string prompt, grammar;
    engine::GenerateOptions options;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("generate", "Generate text, the route beside it");
  add_engine_options(*command, args->engine);
  command->add_option("-p,--prompt", args->prompt, "the text to go on from; empty: from nothing");
  command->add_option("-n,--tokens", args->options.max_tokens, "at most so many tokens")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  add_sampler_options(*command, args->options.sampler);
  command->add_option("--stop", args->options.stop, "the text ends before this; may be given several times")
      ->allow_extra_args(false)
      ->check([](const std::string& text) { return text.empty() ? std::string("an empty text ends nothing") : ""; });
  command->add_option("--grammar", args->grammar, "the text is of this GBNF grammar (a file), or 'json'");
  command->add_option("--logprobs", args->options.num_logprobs, "with --json: the N most probable tokens of each place")
      ->check(CLI::Range(0, 1000));
  command->add_flag("--json", args->json, "last line: one JSON object with the route");
  command->footer("Example: ./tessera generate runs/demo -p 'def area(radius):' -n 60");
  command->callback([args] {
    if (args->options.num_logprobs > 0 && !args->json)
      throw Error(ErrorCode::kUsage, "--logprobs are part of the JSON object", "give --json too");
    engine::check(args->options.sampler);
    if (args->options.num_logprobs > 0)
      args->engine.kept_a_token =
          (args->options.num_logprobs + 1) * static_cast<int64_t>(sizeof(engine::TokenLogprob) + sizeof(float));
    LoadedEngine loaded = load_engine(args->engine);
    args->options.stop_tokens = loaded.stop_tokens;
    if (!args->grammar.empty()) args->options.grammar = load_grammar(args->grammar);
    engine::Batch batch(*loaded.engine, loaded.tokenizer);
    const auto generation = batch.add(engine::prompt_tokens(loaded.tokenizer, args->prompt), args->options);
    RouteLines lines(loaded.tokenizer, loaded.engine->architecture(), ::isatty(STDOUT_FILENO) != 0);
    while (batch.step()) std::cout << lines.take(generation->result(), generation->route(), false) << std::flush;
    const engine::Generated& generated = generation->result();
    if (generated.error) throw *generated.error;
    std::cout << lines.take(generated, generated.route, true);
    const int num_generated = static_cast<int>(generated.tokens.size()) - generated.num_prompt_tokens;
    if (generated.finish_reason == "length" && num_generated < args->options.max_tokens)
      log_info("the text ends at the model's context of {} tokens", loaded.engine->context_length());
    if (!args->json) return;
    const auto rate = [](double tokens, double seconds) { return seconds > 0 ? tokens / seconds : 0.0; };
    Json json = {{"text", generated.text},
                 {"tokens", generated.tokens},
                 {"finish_reason", generated.finish_reason},
                 {"prefill_tokens_per_s", rate(generated.num_prefilled_tokens, generated.prefill_seconds)},
                 {"decode_tokens_per_s", rate(num_generated - 1.0, generated.decode_seconds)},
                 {"routing", Json::array({to_json(generated.route)})}};
    if (loaded.engine->plan()) json["memory"] = memory_json(*loaded.engine);
    std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.pop_back();  // the object goes on
    std::cout << text;
    if (args->options.num_logprobs > 0) {
      std::cout << ",\"logprobs\":[";  // one place at a time: all of them as one object would not fit into --memory
      for (size_t i = 0; i < generated.logprobs.size(); ++i) {
        Json top = Json::array();
        for (const engine::TokenLogprob& t : generated.top_logprobs[i])
          top.push_back({{"token", t.token}, {"logprob", t.logprob}});
        const Json place = {{"token", generated.logprobs[i].token},
                            {"logprob", generated.logprobs[i].logprob},
                            {"top", std::move(top)}};
        std::cout << (i > 0 ? "," : "") << place;
      }
      std::cout << "]";
    }
    std::cout << ",\"peak_rss_bytes\":" << peak_rss_bytes() << "}\n";
  });
}

}  // namespace tessera
