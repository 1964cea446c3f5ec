// Memory for the large tensors of a training on the CPU, kept from step to step.
#pragma once

namespace tessera {

// From here on LibTorch's CPU tensors of 256 KiB and more take blocks that freed tensors left. Without it glibc hands
// them back to the system and the next step faults every page in again, and what lives long (gradients) lies among what
// doesn't, so that the heap has holes. What is kept never makes the process larger than 5/4 of the most that was alive
// at once. New blocks ask for huge pages. Call it before the first tensor; it stays for the life of the process.
void use_block_cache();

}  // namespace tessera
