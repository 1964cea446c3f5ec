#include "base/event_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdio>

#include "base/error.h"

namespace tessera {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";  // TensorBoard reads files with "tfevents" in their names

std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
    table[i] = crc;
  }
  return table;
}

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
  return bytes;
}

// Rotated and shifted, so that the CRC of a string that holds CRCs is no trouble (as in TFRecord, from LevelDB).
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

// Protocol buffer wire format: a key (field number and type), then the value.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_key(std::string& out, uint32_t field, WireType type) { put_varint(out, field << 3 | type); }
void put_int(std::string& out, uint32_t field, int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}
void put_double(std::string& out, uint32_t field, double value) {
  put_key(out, field, kFixed64);
  out += little_endian(std::bit_cast<uint64_t>(value));
}
void put_float(std::string& out, uint32_t field, float value) {
  put_key(out, field, kFixed32);
  out += little_endian(std::bit_cast<uint32_t>(value));
}
void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

// Event {double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log =
// 7}
std::string new_event(int64_t step) {
  using namespace std::chrono;
  std::string event;
  put_double(event, 1, duration<double>(system_clock::now().time_since_epoch()).count());
  put_int(event, 2, step);
  return event;
}

// One more than the highest number in the folder.
int next_number(const std::filesystem::path& folder) {
  int highest = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int number = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
    highest = std::max(highest, number);
  }
  return highest + 1;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = 0xFFFFFFFFu;
  for (unsigned char byte : bytes) crc = (crc >> 8) ^ kTable[(crc ^ byte) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& folder, int64_t first_step) {
  char digits[16];
  try {
    std::filesystem::create_directories(folder);
    std::snprintf(digits, sizeof digits, "%06d", next_number(folder));
  } catch (const std::filesystem::filesystem_error& e) {
    throw Error(ErrorCode::kFile, e.what());
  }
  path_ = folder / (std::string(kPrefix) + digits);
  file_.open(path_, std::ios::binary);
  std::string event = new_event(first_step);
  put_bytes(event, 3, "brain.Event:2");
  record(event);
  if (first_step > 0) {
    std::string session_log;
    put_int(session_log, 1, 1);  // status = START
    event = new_event(first_step);
    put_bytes(event, 7, session_log);
    record(event);
  }
  flush();
}

EventFile::~EventFile() { file_.flush(); }

void EventFile::record(std::string_view event) {
  const std::string length = little_endian<uint64_t>(event.size());
  file_ << length << little_endian(masked_crc(length)) << event << little_endian(masked_crc(event));
}

void EventFile::scalar(std::string_view tag, int64_t step, double value) {
  // Summary {repeated Value value = 1}; Value {string tag = 1; float simple_value = 2}
  std::string scalar_value, summary, event = new_event(step);
  put_bytes(scalar_value, 1, tag);
  put_float(scalar_value, 2, static_cast<float>(value));
  put_bytes(summary, 1, scalar_value);
  put_bytes(event, 5, summary);
  record(event);
}

void EventFile::flush() {
  file_.flush();
  if (!file_) {
    throw Error(ErrorCode::kFile, "can't write " + path_.string(), "is the disk full, or the folder not yours?");
  }
}

}  // namespace tessera
