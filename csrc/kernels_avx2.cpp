#define BISPARSE_ISA isa_avx2
#define BISPARSE_LANE_BYTES 32
#include "isa/kernels.inc"

namespace bisparse {
const Kernels* avx2_kernels() {
  static constexpr Kernels kernels{"avx2", isa_avx2::solve_tiles, isa_avx2::solve_rows, isa_avx2::kScratchBytes};
  return &kernels;
}
}  // namespace bisparse
