// GCC 12 warns inside its own header (PR 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#define BISPARSE_ISA products_avx512vbmi2
#define BISPARSE_VECTORS "isa/products/vectors_avx512.hpp"
#include "isa/products/products.inc"

namespace bisparse {
const ProductKernels* avx512vbmi2_products() {
  static constexpr ProductKernels kernels{"avx512vbmi2", products_avx512vbmi2::kEvenOdd, products_avx512vbmi2::kBatchAtOnce,
                                          products_avx512vbmi2::multiply_rows, products_avx512vbmi2::multiply_wide,
                                          products_avx512vbmi2::multiply_columns,
                                          products_avx512vbmi2::gradient_of_values};
  return &kernels;
}
}  // namespace bisparse
