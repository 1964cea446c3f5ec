// Where a result comes from: put beside every figure that is kept.
#pragma once
#include <string>

namespace tessera {

std::string commit();      // short hash of HEAD, "+" behind it when tracked files differ; "" outside of git
std::string date_today();  // 2026-11-24
// "AMD EPYC 7763, 2 cores"; of the device "cuda" "NVIDIA H100 80GB HBM3, ..." (nvidia-smi knows).
std::string machine_name(const std::string& device = "cpu");

}  // namespace tessera
