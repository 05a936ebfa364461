#define BISPARSE_ISA isa_portable
#define BISPARSE_LANE_BYTES 16
#include "isa/kernels.inc"

namespace bisparse {
const Kernels* portable_kernels() {
  static constexpr Kernels kernels{"portable", isa_portable::solve_tiles, isa_portable::solve_rows, isa_portable::kScratchBytes};
  return &kernels;
}
}  // namespace bisparse
