#define BISPARSE_ISA sparse_avx2
#define BISPARSE_BYTES 32
#include "isa/sparse/sparse.inc"

namespace bisparse {
const SparseKernels* avx2_sparse() {
  static constexpr SparseKernels kernels{"avx2", sparse_avx2::fill_panel, sparse_avx2::pass_rows};
  return &kernels;
}
}  // namespace bisparse
