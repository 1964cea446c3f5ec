// Memory for the large tensors of a training on the CPU, kept from step to step.
#pragma once

namespace tessera {

// From here on LibTorch's CPU tensors of 256 KiB and more take blocks that freed tensors left. Without it glibc hands
// them back to the system and the next step faults every page in again, and what lives long (gradients) lies among what
// doesn't, so that the heap has holes. Blocks in use and kept are together at most 1/32 above the most that was in use
// at once: a tensor of another size than any kept block gets its pages moved to new addresses (mremap). Call it before
// the first tensor; it stays for the life of the process. A sanitizer sees no overrun within a block.
void use_block_cache();

}  // namespace tessera
