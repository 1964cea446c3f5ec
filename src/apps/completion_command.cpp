// tessera completion: a script for bash or zsh, generated from the command tree and the config keys.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <sstream>

#include "apps/commands.h"
#include "base/log.h"
#include "core/config.h"

namespace tessera {
namespace {

struct CommandWords {
  std::string name, about;
  std::vector<std::string> words;  // subcommands and flags
  bool takes_config_keys = false;
};

// Commands of tessera-train and of the ./tessera script: this program can't see their options.
const CommandWords kElsewhere[] = {
    {"train", "Train a model", {"--resume", "--init", "--add-domain", "--json", "--help"}, true},
    {"distil",
     "Distil the domain router that training starts from",
     {"--out", "--teacher", "--no-teacher", "--json", "--help"},
     true},
    {"embed", "A teacher's vectors of texts", {"--data", "--teacher", "--tokens-only", "--help"}, false},
    {"demo", "Data, training, evaluation, text and an HTML page", {"--config", "--json", "--help"}, false},
    {"compare",
     "Train and evaluate the variants of configs/compare",
     {"--only", "--seeds", "--out", "--runs", "--time", "--list", "--json", "--help"},
     true},
    {"get", "Fetch a published model and import it", {"smollm2"}, false},
    {"setup", "Install and build what is missing", {}, false},
    {"test", "Build everything and pass every test", {}, false},
};

std::vector<std::string> config_keys() {
  std::vector<std::string> keys;
  std::istringstream help(config_help());
  for (std::string line; std::getline(help, line);) {
    const size_t start = line.find("--"), end = line.find('=');
    if (start != std::string::npos && end != std::string::npos && start < end)
      keys.push_back(line.substr(start, end - start + 1));
  }
  return keys;
}

using AppPredicate = bool (*)(const CLI::App*);
constexpr AppPredicate kEveryApp = [](const CLI::App*) { return true; };

// The command's subcommands, their options and its own.
void add_words(const CLI::App& command, std::vector<std::string>& words) {
  const auto add = [&words](const std::string& word) {
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  };
  for (const CLI::App* sub : command.get_subcommands(kEveryApp)) {
    add(sub->get_name());
    add_words(*sub, words);
  }
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) add("--" + name);
  }
}

// Every command once: those of this program, then those found elsewhere.
std::vector<CommandWords> all_commands(const CLI::App& app) {
  std::vector<CommandWords> commands;
  for (const CLI::App* sub : app.get_subcommands(kEveryApp)) {
    if (sub->get_group().empty()) continue;  // not for users
    CommandWords command = {sub->get_name(), sub->get_description(), {}, sub->get_allow_extras()};
    // Words that no option names: values, and what the script itself adds.
    if (command.name == "eval") command.words = {"--suite", "routing", "cross"};
    if (command.name == "inspect") command.words = {"--atlas"};
    if (command.name == "bench") command.words = {"train", "engine"};
    if (command.name == "data") command.words = {"fetch", "small", "full", "mixed"};
    if (command.name == "completion") command.words = {"bash", "zsh"};
    add_words(*sub, command.words);
    commands.push_back(std::move(command));
  }
  for (const CommandWords& command : kElsewhere) {
    const bool is_known =
        std::any_of(commands.begin(), commands.end(), [&](const CommandWords& c) { return c.name == command.name; });
    if (!is_known) commands.push_back(command);
  }
  return commands;
}

// A shell word in single quotes.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

std::string bash_script(const std::vector<CommandWords>& commands) {
  std::string out =
      "# bash completion of tessera: eval \"$(./tessera completion bash)\"\n"
      "_tessera() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=''\n"
      "  # bash splits --key=value at the '='; a value is completed as a file name.\n"
      "  if [[ $current == '=' || ${COMP_WORDS[COMP_CWORD-1]} == '=' ]]; then\n"
      "    COMPREPLY=($(compgen -f -- \"${current#=}\"))\n"
      "    return\n"
      "  fi\n";
  out += fmt::format("  local keys={}\n", quoted(fmt::format("{}", fmt::join(config_keys(), " "))));
  std::vector<std::string> names;
  for (const CommandWords& command : commands) names.push_back(command.name);
  out += fmt::format(
      "  if (( COMP_CWORD == 1 )); then\n    COMPREPLY=($(compgen -W {} -- \"$current\"))\n    return\n  fi\n",
      quoted(fmt::format("{} --help", fmt::join(names, " "))));
  out += "  case $command in\n";
  for (const CommandWords& command : commands) {
    out += fmt::format("    {}) words={}", command.name, quoted(fmt::format("{}", fmt::join(command.words, " "))));
    out += command.takes_config_keys ? "; words+=\" $keys\" ;;\n" : " ;;\n";
  }
  out +=
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  [[ $current == -* ]] || COMPREPLY+=($(compgen -f -- \"$current\"))\n"
      "  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
      "}\n"
      "complete -o filenames -F _tessera tessera ./tessera\n";
  return out;
}

std::string zsh_script(const std::vector<CommandWords>& commands) {
  std::string out =
      "#compdef tessera\n"
      "# zsh completion of tessera: eval \"$(./tessera completion zsh)\", behind compinit\n"
      "_tessera() {\n";
  std::vector<std::string> keys;
  for (const std::string& key : config_keys()) keys.push_back(quoted(key));
  out += fmt::format("  local -a keys=({})\n  local -a commands=(\n", fmt::join(keys, " "));
  for (const CommandWords& command : commands) out += "    " + quoted(command.name + ":" + command.about) + "\n";
  out +=
      "  )\n"
      "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
      "  local -a more=()\n"
      "  case $words[2] in\n";
  for (const CommandWords& command : commands) {
    std::vector<std::string> words;
    for (const std::string& word : command.words) words.push_back(quoted(word));
    out += fmt::format("    {}) more=({})", command.name, fmt::join(words, " "));
    out += command.takes_config_keys ? "; compadd -S '' -- $keys ;;\n" : " ;;\n";
  }
  out +=
      "  esac\n"
      "  compadd -- $more\n"
      "  _files\n"
      "}\n"
      "compdef _tessera tessera ./tessera\n";
  return out;
}

}  // namespace

void add_completion_command(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "A completion script for bash or zsh");
  command->add_option("shell", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  command->footer("Example:\n  eval \"$(./tessera completion bash)\"");
  command->callback([shell, &app] {
    const std::vector<CommandWords> commands = all_commands(app);
    std::cout << (*shell == "bash" ? bash_script(commands) : zsh_script(commands)) << std::flush;
  });
}

}  // namespace tessera
