// Numbers below 1.2e-38, on which a CPU's products run at a fraction of their rate.
#pragma once

namespace tessera {

// From here on they are 0 on every thread that computes. The momentum of a component that no token chooses any more
// halves every few steps until Muon's products consist of them: a flat MoE with 17 such components of 128 trained at a
// third of its rate (docs/LOG.md). Call it before the first tensor.
void flush_denormals();

}  // namespace tessera
