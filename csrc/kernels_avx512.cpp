#define BISPARSE_ISA isa_avx512
#define BISPARSE_LANE_BYTES 64
#include "isa/kernels.inc"

namespace bisparse {
const Kernels* avx512_kernels() {
  static constexpr Kernels kernels{"avx512", isa_avx512::solve_tiles, isa_avx512::solve_rows, isa_avx512::kScratchBytes};
  return &kernels;
}
}  // namespace bisparse
