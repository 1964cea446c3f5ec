#include <unistd.h>

#include <iostream>

#include "apps/commands.h"
#include "apps/route_text.h"
#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/route.h"
#include "train/generate.h"
#include "train/scorer.h"

namespace tessera {

void add_generate_command(CLI::App& app) {
  struct Arguments {
    std::string model, prompt;
    GenerateOptions options;
    std::vector<std::string> domains, deny;
    int threads = 0;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("generate", "Generate text, the route beside it");
  command->add_option("MODEL_OR_RUN", args->model, "a model folder or a run")->required();
  command->add_option("-p,--prompt", args->prompt, "the text to go on from; empty: from nothing");
  command->add_option("-n,--tokens", args->options.max_tokens, "at most so many tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--temperature", args->options.temperature, "0: the most probable token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_option("--top-p", args->options.top_p, "nucleus sampling")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--seed", args->options.seed, "of the sampling")->capture_default_str();
  command->add_option("--domains", args->domains, "only these domains may be active, for example code,mathematics")
      ->delimiter(',');
  command->add_option("--deny", args->deny, "domains that must not be active: their components are never read")
      ->delimiter(',');
  command->add_option("--threads", args->threads, "0: all CPUs");
  command->add_flag("--json", args->json, "last line: one JSON object with the route");
  command->footer("Example: ./tessera generate runs/demo -p 'def area(radius):' -n 60");
  command->callback([args] {
    at::set_num_threads(args->threads > 0 ? args->threads : num_cpus());
    const ModelFolder folder = open_model(args->model);
    const Tokenizer tokenizer = load_tokenizer(folder);
    args->options.allowed_domains =
        allowed_domains(folder.architecture.hierarchy, args->domains, args->deny, "--domains/--deny");
    const Model model(folder.architecture, Parameters(folder), at::kFloat);
    const Generated generated = generate(model, tokenizer, args->prompt, args->options);
    std::cout << text_with_route(generated, tokenizer, folder.architecture, ::isatty(STDOUT_FILENO) != 0);
    if (args->json) {
      const double tokens = static_cast<double>(generated.tokens.size()) - generated.num_prompt_tokens;
      std::cout << Json{{"text", generated.text},
                        {"tokens", generated.tokens},
                        {"decode_tokens_per_s", tokens / generated.seconds},
                        {"routing", to_json(generated.route)}}
                       .dump(-1, ' ', false, Json::error_handler_t::replace)
                << "\n";
    }
  });
}

}  // namespace tessera
