#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>

#include "apps/commands.h"
#include "base/error.h"
#include "base/log.h"
#include "core/config.h"

namespace tessera {
namespace {

// CLI11 would only say that a subcommand is required.
void check_command(const CLI::App& app, const std::string& word) {
  if (word.starts_with("-")) return;
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), word) != known.end()) return;
  const std::string near = nearest(word, known);
  throw Error(ErrorCode::kUsage, "unknown command '" + word + "'",
              near.empty() ? "./tessera --help lists the commands" : "did you mean '" + near + "'?");
}

// A result that a full disk has cut short must not look like one.
void check_output() {
  std::cout.flush();
  if (!std::cout)
    throw Error(ErrorCode::kFile, "standard output could not be written", "is it closed, or its disk full?");
}

}  // namespace

int run_app(CLI::App& app, int argc, char** argv) {
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  try {
    if (argc > 1) check_command(app, argv[1]);
    for (const CLI::App* command : app.get_subcommands({})) {
      if (argc > 2 && command->get_name() == argv[1] && command->get_require_subcommand_min() > 0)
        check_command(*command, argv[2]);
    }
    app.parse(argc, argv);
    check_output();
    return 0;
  } catch (const CLI::RuntimeError& e) {  // a command that ended with an exit code of its own
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // --help
      app.exit(e);
      return std::cout.flush() ? 0 : 2;
    }
    log_info("error: {}", e.what());
    log_info("hint:  --help shows what is expected, with an example");
    return 2;
  } catch (const Error& e) {
    log_info("error: {}", e.what());
    if (!e.hint().empty()) log_info("hint:  {}", e.hint());
    return 2;
  } catch (const std::filesystem::filesystem_error& e) {
    log_info("error: {}: {}", e.path1().string(), e.code().message());
    log_info("hint:  check the path and its permissions");
    return 2;
  } catch (const std::bad_alloc&) {
    log_info("error: out of memory");
    log_info("hint:  a smaller train.micro_batch_tokens (training), --memory (running) or a smaller text needs less");
    return 2;
  } catch (const std::exception& e) {
    log_info("internal error: {}", e.what());
    log_info("hint:  this is a fault of tessera's; please report it with the command that you ran");
    return 1;
  }
}

}  // namespace tessera
