#include "kernels/amx_tiles.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tessera {
namespace {

// Linux gives the tiles' state to processes that ask for it (arch_prctl(2)); the answer holds for all of their threads.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool may = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return may;
}

}  // namespace

bool cpu_has_tiles(TileArithmetic arithmetic) {
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return false;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // not every compiler's __builtin_cpu_supports knows AMX's names
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const unsigned tiles = 1u << 24, products = 1u << (arithmetic == TileArithmetic::kInt8 ? 25 : 22);
  return (edx & tiles) && (edx & products) && may_use_tiles();
}

}  // namespace tessera
