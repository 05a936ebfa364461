#include <immintrin.h>

#define BISPARSE_ISA products_avx2
#define BISPARSE_VECTORS "isa/products/vectors_avx2.hpp"
#include "isa/products/products.inc"

namespace bisparse {
const ProductKernels* avx2_products() {
  static constexpr ProductKernels kernels{"avx2", products_avx2::kEvenOdd, products_avx2::kBatchAtOnce,
                                          products_avx2::multiply_rows, products_avx2::multiply_wide,
                                          products_avx2::multiply_columns,
                                          products_avx2::gradient_of_values};
  return &kernels;
}
}  // namespace bisparse
