// Python bindings of sparse products. They take addresses, as packed products do: their one caller, kernels/sparse_products.py,
// checks shapes, dtypes and memory layout of every tensor first.
#include "sparse_module.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "sparse.hpp"

namespace nb = nanobind;

namespace bisparse {
namespace {

using Address = std::uintptr_t;
using Order = std::tuple<Address, Address, Address, std::int64_t, std::int64_t>;  // starts, places, perm or 0, rows, width
using Numbers = std::tuple<Address, int>;                                         // address, bytes of one number

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

Activations activations(const Numbers& numbers) {
  const auto [address, bytes] = numbers;
  if (bytes != 2 && bytes != 4 && bytes != 8) throw std::invalid_argument("sparse products take bfloat16, float32 and float64");
  return {at<const void>(address), bytes == 2 ? Dtype::bf16 : bytes == 4 ? Dtype::f32 : Dtype::f64};
}

const SparseKernels* sparse_named(const std::optional<std::string>& name) {
  if (!name) return nullptr;
  for (const SparseKernels* kernels : available_sparse())
    if (*name == kernels->name) return kernels;
  throw std::invalid_argument("instruction set not available here: " + *name);
}

SparseOrder order_at(const Order& order) {
  const auto& [starts, places, perm, rows, width] = order;
  return {at<const std::int32_t>(starts), at<const std::int32_t>(places), at<const std::int32_t>(perm), rows, width};
}

void run_product(const Order& order, const Numbers& values, const Numbers& input, std::int64_t batch, const Numbers& bias,
                 Address output, int threads, const std::optional<std::string>& instruction_set) {
  const SparseProduct product{order_at(order), activations(values), activations(input), batch, activations(bias), at<void>(output)};
  const SparseKernels* kernels = sparse_named(instruction_set);
  const nb::gil_scoped_release released;
  sparse_product(product, threads, kernels);
}

void run_gradient(const Order& order, const Numbers& input, const Numbers& own, std::int64_t batch, Address gradient, int threads,
                  const std::optional<std::string>& instruction_set) {
  const SparseGradient task{order_at(order), activations(input), activations(own), batch, at<void>(gradient)};
  const SparseKernels* kernels = sparse_named(instruction_set);
  const nb::gil_scoped_release released;
  sparse_gradient(task, threads, kernels);
}

void run_order_by_columns(const Order& order, Address starts, Address places, Address perm) {
  const SparseOrder by_rows = order_at(order);
  const nb::gil_scoped_release released;
  sparse_order_by_columns(by_rows, at<std::int32_t>(starts), at<std::int32_t>(places), at<std::int32_t>(perm));
}

}  // namespace

void bind_sparse(nb::module_& m) {
  m.def("sparse_instruction_sets", [] {
    std::vector<std::string> names;
    for (const SparseKernels* kernels : available_sparse()) names.emplace_back(kernels->name);
    return names;
  });
  m.def("sparse_product", run_product, nb::arg("order"), nb::arg("values"), nb::arg("x"), nb::arg("batch"), nb::arg("bias"),
        nb::arg("output"), nb::arg("threads"), nb::arg("instruction_set").none());
  m.def("sparse_gradient", run_gradient, nb::arg("order"), nb::arg("x"), nb::arg("own"), nb::arg("batch"), nb::arg("gradient"),
        nb::arg("threads"), nb::arg("instruction_set").none());
  m.def("sparse_order_by_columns", run_order_by_columns, nb::arg("order"), nb::arg("starts"), nb::arg("places"), nb::arg("perm"));
}

}  // namespace bisparse
