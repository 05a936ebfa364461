#define BISPARSE_ISA sparse_portable
#define BISPARSE_BYTES 16
#include "isa/sparse/sparse.inc"

namespace bisparse {
const SparseKernels* portable_sparse() {
  static constexpr SparseKernels kernels{"portable", sparse_portable::fill_panel, sparse_portable::pass_rows};
  return &kernels;
}
}  // namespace bisparse
