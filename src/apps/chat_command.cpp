// tessera chat: a conversation on the terminal.
#include <editline/readline.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "apps/commands.h"
#include "apps/engine_arguments.h"
#include "apps/route_text.h"
#include "base/error.h"
#include "base/log.h"
#include "chat/session.h"

namespace tessera {
namespace {

constexpr const char* kHelp =
    "/help              this\n"
    "/clear             forget the conversation\n"
    "/system TEXT       begin anew with a system message (none without TEXT)\n"
    "/set NAME VALUE    temperature, top_k, top_p, min_p, repetition_penalty, seed or tokens\n"
    "/route             domains and components of the last answer\n"
    "/stats             tokens and speed of the last answer\n"
    "/exit              leave (Ctrl-D too); Ctrl-C stops an answer\n";

std::atomic<bool> is_interrupted{false};
void on_interrupt(int) { is_interrupted = true; }

// A line of the user's; nothing at the end of the input.
std::optional<std::string> read_line(bool interactive) {
  if (!interactive) {
    std::string line;
    return std::getline(std::cin, line) ? std::optional(line) : std::nullopt;
  }
  char* line = ::readline("> ");
  if (!line) return std::nullopt;
  std::string text = line;
  if (!text.empty()) ::add_history(line);
  ::free(line);
  return text;
}

std::string history_file() {
  const char* home = std::getenv("HOME");
  return home ? std::string(home) + "/.tessera_history" : "";
}

void set_option(engine::GenerateOptions& options, const std::string& name, const std::string& value) {
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0') throw Error(ErrorCode::kUsage, "/set " + name + ": '" + value + "' is no number");
  const auto whole = [&](double least, double most) {
    if (number >= least && number <= most && number == std::floor(number)) return static_cast<int64_t>(number);
    throw Error(ErrorCode::kUsage, fmt::format("/set {}: expected a whole number from {:.0f} to {:.0f}, found {}", name,
                                               least, most, value));
  };
  engine::GenerateOptions changed = options;
  if (name == "temperature") {
    changed.sampler.temperature = number;
  } else if (name == "top_k") {
    changed.sampler.top_k = static_cast<int>(whole(0, 1 << 24));
  } else if (name == "top_p") {
    changed.sampler.top_p = number;
  } else if (name == "min_p") {
    changed.sampler.min_p = number;
  } else if (name == "repetition_penalty") {
    changed.sampler.repetition_penalty = number;
  } else if (name == "seed") {
    changed.sampler.seed = static_cast<uint64_t>(whole(0, 9007199254740992.0));
  } else if (name == "tokens") {
    changed.max_tokens = static_cast<int>(whole(1, kMostTokens));
  } else {
    throw Error(ErrorCode::kUsage, "there is no '" + name + "' to set", "/help lists what can be set");
  }
  engine::check(changed.sampler);
  options = changed;
}

// False: leave.
bool run_command(const std::string& line, chat::Session& session, const LoadedEngine& loaded) {
  const size_t space = line.find(' ');
  const std::string command = line.substr(0, space), rest = space == std::string::npos ? "" : line.substr(space + 1);
  if (command == "/exit" || command == "/quit") return false;
  if (command == "/clear") {
    session.clear();
  } else if (command == "/system") {
    session.set_system(rest);
  } else if (command == "/set") {
    const size_t gap = rest.find(' ');
    set_option(session.options(), rest.substr(0, gap), gap == std::string::npos ? "" : rest.substr(gap + 1));
  } else if (command == "/route") {
    std::cout << text_with_route(session.last(), loaded.tokenizer, loaded.engine->architecture(),
                                 ::isatty(STDOUT_FILENO) != 0);
  } else if (command == "/stats") {
    const engine::Generated& g = session.last();
    std::cout << fmt::format("{} tokens of prompt ({} run in {:.2f} s), {} of answer in {:.2f} s\n",
                             g.num_prompt_tokens, g.num_prefilled_tokens, g.prefill_seconds,
                             static_cast<int>(g.tokens.size()) - g.num_prompt_tokens, g.decode_seconds);
  } else if (command == "/help") {
    std::cout << kHelp;
  } else {
    throw Error(ErrorCode::kUsage, "unknown command " + command, "/help lists the commands");
  }
  return true;
}

void run_chat(const EngineArguments& args, const engine::GenerateOptions& given, const std::string& system) {
  engine::check(given.sampler);
  LoadedEngine loaded = load_engine(args);
  engine::GenerateOptions options = given;
  options.stop_tokens = loaded.stop_tokens;
  chat::Session session(*loaded.engine, loaded.tokenizer, chat::Template::of_model(loaded.engine->model().path),
                        options);
  if (!system.empty()) session.set_system(system);
  const bool interactive = ::isatty(STDIN_FILENO) != 0;
  const std::string history = interactive ? history_file() : "";
  if (interactive) {
    ::using_history();
    if (!history.empty()) ::read_history(history.c_str());
    log_info("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves");
  }
  int dropped = 0;
  struct sigaction action = {}, before = {};
  action.sa_handler = on_interrupt;
  while (const std::optional<std::string> line = read_line(interactive)) {
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    if (!history.empty()) ::write_history(history.c_str());  // now: Ctrl-C at the prompt ends the program
    try {
      if (line->front() == '/') {
        if (!run_command(*line, session, loaded)) break;
        continue;
      }
      is_interrupted = false;
      ::sigaction(SIGINT, &action, &before);
      session.ask(*line, [](std::string_view piece) {
        std::cout << piece << std::flush;
        return !is_interrupted;
      });
      ::sigaction(SIGINT, &before, nullptr);
      std::cout << (is_interrupted ? " [stopped]\n" : "\n") << std::flush;
      if (session.num_dropped_turns() > std::exchange(dropped, session.num_dropped_turns()))
        log_info("the context is full: {} of the oldest exchanges are forgotten", dropped);
    } catch (const Error& e) {
      ::sigaction(SIGINT, &before, nullptr);
      log_info("error: {}", e.what());
      if (!e.hint().empty()) log_info("hint:  {}", e.hint());
    }
  }
}

}  // namespace

void add_chat_command(CLI::App& app) {
  struct Arguments {
    EngineArguments engine;
    engine::GenerateOptions options;
    std::string system;
  };
  auto args = std::make_shared<Arguments>();
  args->options.max_tokens = 512;
  CLI::App* command = app.add_subcommand("chat", "A conversation with a model");
  add_engine_options(*command, args->engine);
  command->add_option("--system", args->system, "the system message");
  command->add_option("-n,--tokens", args->options.max_tokens, "of an answer, at most")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  add_sampler_options(*command, args->options.sampler);
  command->footer("Example: ./tessera get smollm2 && ./tessera chat models/smollm2");
  command->callback([args] { run_chat(args->engine, args->options, args->system); });
}

}  // namespace tessera
