#define BISPARSE_ISA products_portable
#define BISPARSE_VECTORS "isa/products/vectors_portable.hpp"
#include "isa/products/products.inc"

namespace bisparse {
const ProductKernels* portable_products() {
  static constexpr ProductKernels kernels{"portable", products_portable::kEvenOdd, products_portable::kBatchAtOnce,
                                          products_portable::multiply_rows, products_portable::multiply_wide,
                                          products_portable::multiply_columns,
                                          products_portable::gradient_of_values};
  return &kernels;
}
}  // namespace bisparse
