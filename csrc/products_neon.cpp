#include <arm_neon.h>

#define BISPARSE_ISA products_neon
#define BISPARSE_VECTORS "isa/products/vectors_neon.hpp"
#include "isa/products/products.inc"

namespace bisparse {
const ProductKernels* neon_products() {
  static constexpr ProductKernels kernels{"neon", products_neon::kEvenOdd, products_neon::kBatchAtOnce,
                                          products_neon::multiply_rows, products_neon::multiply_wide,
                                          products_neon::multiply_columns,
                                          products_neon::gradient_of_values};
  return &kernels;
}
}  // namespace bisparse
