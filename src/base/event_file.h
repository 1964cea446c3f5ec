// TensorBoard's event files, scalars only: TFRecord framing (length, masked CRC-32C, payload, masked CRC-32C) around
// Event protocol buffers, written by hand (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto).
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace tessera {

// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected), as of RFC 3720, appendix B.4.
uint32_t crc32c(std::string_view bytes);

// Writes one file of a run's folder. A run that goes on opens the next file, events.out.tfevents.000002 after 000001;
// TensorBoard reads a folder's files in the order of their names.
class EventFile {
 public:
  // `first_step` above 0: TensorBoard then forgets what earlier files say of that step and those after it (a run that
  // goes on from an older checkpoint repeats them). Throws Error{kFile}.
  explicit EventFile(const std::filesystem::path& folder, int64_t first_step = 0);
  ~EventFile();  // flushes
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // `tag` is UTF-8; what stands before its first "/" is the group in TensorBoard. Buffered until flush().
  void scalar(std::string_view tag, int64_t step, double value);
  // Throws Error{kFile} when the disk is full.
  void flush();
  const std::filesystem::path& path() const { return path_; }

 private:
  void record(std::string_view event);
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace tessera
