// Python bindings of packed matrices. Sizes are checked here; contents (the index) where a matrix enters the library.
#include "packed_module.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "dtypes.hpp"
#include "products.hpp"

namespace nb = nanobind;

namespace bisparse {
namespace {

using AnyRows = nb::ndarray<nb::ro, nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Dense = nb::ndarray<nb::ro, nb::device::cpu, nb::ndim<2>>;
using Values = nb::ndarray<nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Bytes = nb::ndarray<const std::uint8_t, nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Output = nb::ndarray<std::uint8_t, nb::device::cpu, nb::ndim<2>, nb::c_contig>;

template <class Array>
std::int64_t size(const Array& array, std::size_t axis) {
  return static_cast<std::int64_t>(array.shape(axis));
}

void require(bool holds, const char* otherwise) {
  if (!holds) throw std::invalid_argument(otherwise);
}

template <class V, class I>
PackedView view_of(const V& values, const I& index, std::int64_t cols, int keep, int block) {
  require(block >= 2 && block <= kMaxBlock && keep >= 1 && keep < block, "keep:block out of range");
  require(cols >= 0, "the number of columns is negative");
  const PackedView view{values.data(), index.data(), size(values, 0), cols, keep, block, dtype_of(values.dtype())};
  require(size(values, 1) == view.row_values(), "values: wrong number of columns for this pattern");
  require(size(index, 0) == view.rows && size(index, 1) == view.row_bytes(), "index: wrong shape for this matrix");
  return view;
}

const ProductKernels* products_named(const std::optional<std::string>& name) {
  if (!name) return nullptr;
  for (const ProductKernels* kernels : available_products())
    if (*name == kernels->name) return kernels;
  throw std::invalid_argument("instruction set not available here: " + *name);
}

// Products take addresses: wrapping a tensor as an array costs 5 us, as much as a small product. Their one caller,
// kernels/products.py, checks shapes, dtypes and memory layout of every tensor first.
template <class T = void>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

Dtype float_dtype(bool is_bf16) { return is_bf16 ? Dtype::bf16 : Dtype::f32; }

using Address = std::uintptr_t;
using Activations = std::tuple<Address, bool>;  // address, whether bfloat16
using Matrix = std::tuple<Address, bool, Address, std::int64_t, std::int64_t, int, int>;

PackedView view_at(const Matrix& matrix) {
  const auto& [values, is_bf16, index, rows, cols, keep, block] = matrix;
  require(block >= 2 && block <= kMaxBlock && keep >= 1 && keep < block, "keep:block out of range");
  return {at(values), at<const std::uint8_t>(index), rows, cols, keep, block, float_dtype(is_bf16)};
}

void run_product(const Matrix& matrix, const Activations& input, std::int64_t batch, const Activations& bias,
                 const Activations& output, bool transposed, bool features_first, int threads,
                 const std::optional<std::string>& instruction_set) {
  const Product product{view_at(matrix), at(std::get<0>(input)), float_dtype(std::get<1>(input)), batch,
                        at(std::get<0>(bias)), float_dtype(std::get<1>(bias)), at(std::get<0>(output)),
                        float_dtype(std::get<1>(output)), features_first};
  const ProductKernels* kernels = products_named(instruction_set);
  const nb::gil_scoped_release released;
  (transposed ? multiply_transposed : multiply)(product, threads, kernels);
}

void run_gradient(const Matrix& matrix, const Activations& grad_output, const Activations& input, std::int64_t batch,
                  Address free, Address gradient, int threads, const std::optional<std::string>& instruction_set) {
  const ValueGradient task{view_at(matrix), at(std::get<0>(grad_output)), float_dtype(std::get<1>(grad_output)),
                           at(std::get<0>(input)), float_dtype(std::get<1>(input)), batch, at<const std::uint8_t>(free),
                           at<float>(gradient)};
  const ProductKernels* kernels = products_named(instruction_set);
  const nb::gil_scoped_release released;
  value_gradient(task, threads, kernels);
}

std::tuple<std::int64_t, std::int64_t> run_pack(const Dense& dense, const std::optional<Bytes>& mask, int keep, int block,
                                                const Values& values, const Output& index, const Output& free, int threads) {
  const PackedView view = view_of(values, index, size(dense, 1), keep, block);
  require(size(dense, 0) == view.rows && dtype_of(dense.dtype()) == view.dtype, "dense and values differ in rows or dtype");
  require(!mask || (size(*mask, 0) == view.rows && size(*mask, 1) == view.cols), "mask and weight differ in shape");
  require(size(free, 0) == view.rows && size(free, 1) == view.free_bytes(), "free slots: wrong shape");
  const nb::gil_scoped_release released;
  const PackOutcome outcome = pack(view, dense.data(), dense.stride(0), dense.stride(1), mask ? mask->data() : nullptr,
                                   values.data(), index.data(), free.data(), threads);
  return {outcome.bad_row, outcome.free_slots};
}

}  // namespace

void bind_packed(nb::module_& m) {
  m.def("product_instruction_sets", [] {
    std::vector<std::string> names;
    for (const ProductKernels* kernels : available_products()) names.emplace_back(kernels->name);
    return names;
  });
  m.def("packed_product", run_product, nb::arg("matrix"), nb::arg("x"), nb::arg("batch"), nb::arg("bias"),
        nb::arg("output"), nb::arg("transposed"), nb::arg("features_first"), nb::arg("threads"), nb::arg("instruction_set").none());
  m.def("packed_gradient", run_gradient, nb::arg("matrix"), nb::arg("grad_output"), nb::arg("x"), nb::arg("batch"),
        nb::arg("free"), nb::arg("gradient"), nb::arg("threads"), nb::arg("instruction_set").none());
  m.def("pack", run_pack, nb::arg("dense"), nb::arg("mask").none(), nb::arg("keep"), nb::arg("block"), nb::arg("values"),
        nb::arg("index"), nb::arg("free"), nb::arg("threads"));
  m.def(
      "unpack",
      [](const AnyRows& values, const Bytes& index, int keep, int block, const Values& dense, int threads) {
        const PackedView view = view_of(values, index, size(dense, 1), keep, block);
        require(size(dense, 0) == view.rows && dtype_of(dense.dtype()) == view.dtype, "dense and values differ in rows or dtype");
        const nb::gil_scoped_release released;
        unpack(view, dense.data(), threads);
      },
      nb::arg("values"), nb::arg("index"), nb::arg("keep"), nb::arg("block"), nb::arg("dense"), nb::arg("threads"));
  m.def(
      "first_bad_row",
      [](const AnyRows& values, const Bytes& index, std::int64_t cols, int keep, int block, int threads) {
        const PackedView view = view_of(values, index, cols, keep, block);
        const nb::gil_scoped_release released;
        return first_bad_row(view, threads);
      },
      nb::arg("values"), nb::arg("index"), nb::arg("cols"), nb::arg("keep"), nb::arg("block"), nb::arg("threads"));
}

}  // namespace bisparse
