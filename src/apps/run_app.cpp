#include <exception>

#include "apps/commands.h"
#include "base/error.h"
#include "base/log.h"

namespace tessera {

int run_app(CLI::App& app, int argc, char** argv) {
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& e) {  // a command that ended with an exit code of its own
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const Error& e) {
    log_info("error: {}", e.what());
    if (!e.hint().empty()) log_info("hint:  {}", e.hint());
    return 2;
  } catch (const std::bad_alloc&) {
    log_info("error: out of memory");
    log_info("hint:  a smaller train.micro_batch_tokens or model needs less");
    return 2;
  } catch (const std::exception& e) {
    log_info("internal error: {}", e.what());
    log_info("hint:  this is a fault of tessera's; please report it with the command that you ran");
    return 1;
  }
}

}  // namespace tessera
