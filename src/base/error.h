// Three kinds of failure (DESIGN section 7): the user's input is wrong -> throw Error; our bug -> CHECK aborts the
// operation with a BugError, in release too; something degraded -> log.h's warn_once.
#pragma once
#include <stdexcept>
#include <string>

namespace tessera {

enum class ErrorCode {
  kConfig,    // an unknown key, a value out of range, sizes that don't divide
  kData,      // a document, shard, model file or tokenizer that is broken or doesn't fit
  kFile,      // missing, unreadable, disk full
  kUsage,     // the command line
  kDiverged,  // a non-finite loss
};

// At most 800 bytes: a broken file may have megabytes where a name should be. No character is cut in two.
inline std::string shortened(std::string message) {
  constexpr size_t kMaxBytes = 800;
  if (message.size() <= kMaxBytes) return message;
  size_t end = kMaxBytes - 3;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  return message.substr(0, end) + "...";
}

// The user's input or machine is at fault. `message` names the key, file or tensor, what was expected and what was
// found; `hint` says what to do next (may be empty). Programs print both and exit with 2.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, std::string hint = "")
      : std::runtime_error(shortened(message)), code_(code), hint_(std::move(hint)) {}
  ErrorCode code() const { return code_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorCode code_;
  std::string hint_;
};

// An invariant of ours is broken. Programs print it and exit with 1.
class BugError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

}  // namespace tessera

#define TESSERA_STR_(x) #x
#define TESSERA_STR(x) TESSERA_STR_(x)
#define TESSERA_CHECK(condition, message)                                                                     \
  do {                                                                                                        \
    if (!(condition))                                                                                         \
      throw ::tessera::BugError(std::string(__FILE__ ":" TESSERA_STR(__LINE__) ": CHECK(" #condition "): ") + \
                                (message));                                                                   \
  } while (0)
