#define BISPARSE_ISA sparse_avx512
#define BISPARSE_BYTES 64
#include "isa/sparse/sparse.inc"

namespace bisparse {
const SparseKernels* avx512_sparse() {
  static constexpr SparseKernels kernels{"avx512", sparse_avx512::fill_panel, sparse_avx512::pass_rows};
  return &kernels;
}
}  // namespace bisparse
