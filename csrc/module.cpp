// Python bindings: views of the caller's memory in, masks out; the interpreter lock is released while solving.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "dispatch.hpp"
#include "dtypes.hpp"
#include "packed_module.hpp"
#include "sparse_module.hpp"

namespace nb = nanobind;
using namespace bisparse;

namespace {

using Scores = nb::ndarray<nb::ro, nb::device::cpu, nb::ndim<3>>;
using Mask = nb::ndarray<std::uint8_t, nb::device::cpu, nb::ndim<3>, nb::c_contig>;
using Duals = nb::ndarray<nb::device::cpu, nb::ndim<3>, nb::c_contig>;

MaskProblem problem_of(const Scores& scores, const Mask& mask, int keep, int block, bool absolute) {
  for (std::size_t axis = 0; axis < 3; ++axis)
    if (scores.shape(axis) != mask.shape(axis)) throw std::invalid_argument("mask and scores differ in shape");
  if (block < 2 || block > kMaxBlock || keep < 1 || keep >= block) throw std::invalid_argument("keep:block out of range");
  MaskProblem p{};
  p.scores = scores.data();
  p.dtype = dtype_of(scores.dtype());
  p.batch = static_cast<std::int64_t>(scores.shape(0));
  p.rows = static_cast<std::int64_t>(scores.shape(1));
  p.cols = static_cast<std::int64_t>(scores.shape(2));
  p.batch_stride = scores.stride(0), p.row_stride = scores.stride(1), p.col_stride = scores.stride(2);
  p.keep = keep, p.block = block, p.absolute = absolute;
  p.mask = mask.data();
  return p;
}

void* dual_data(const std::optional<Duals>& duals, const MaskProblem& p, std::int64_t rows, std::int64_t cols) {
  if (!duals) return nullptr;
  if (static_cast<std::int64_t>(duals->shape(0)) != p.batch || static_cast<std::int64_t>(duals->shape(1)) != rows ||
      static_cast<std::int64_t>(duals->shape(2)) != cols ||
      duals->dtype() != (solved_in_double(p.dtype) ? nb::dtype<double>() : nb::dtype<float>()))
    throw std::invalid_argument("dual potentials: wrong shape or dtype");
  return duals->data();
}

const Kernels* kernels_named(const std::optional<std::string>& name) {
  if (!name) return nullptr;
  for (const Kernels* kernels : available_kernels())
    if (*name == kernels->name) return kernels;
  throw std::invalid_argument("instruction set not available here: " + *name);
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "Native core of bisparse: exact masks, packed and sparse matrices and products with them.";

  nb::class_<MaskAnswer>(m, "MaskAnswer")
      .def_ro("objective", &MaskAnswer::objective)
      .def_ro("slack", &MaskAnswer::slack)
      .def_ro("repaired", &MaskAnswer::repaired)
      .def_ro("rounds", &MaskAnswer::rounds)
      .def_ro("invalid", &MaskAnswer::invalid);

  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
  });

  m.def(
      "solve_transposable",
      [](const Scores& scores, const Mask& mask, int keep, int block, bool absolute, int threads,
         const std::optional<Duals>& warm_columns, const std::optional<Duals>& row_duals,
         const std::optional<Duals>& column_duals, const std::optional<std::string>& instruction_set) {
        MaskProblem p = problem_of(scores, mask, keep, block, absolute);
        p.warm_columns = dual_data(warm_columns, p, p.tile_rows(), p.cols);
        p.row_duals = dual_data(row_duals, p, p.rows, p.tile_cols());
        p.column_duals = dual_data(column_duals, p, p.tile_rows(), p.cols);
        const Kernels* kernels = kernels_named(instruction_set);
        const nb::gil_scoped_release released;
        return solve_transposable(p, threads, kernels);
      },
      nb::arg("scores"), nb::arg("mask"), nb::arg("keep"), nb::arg("block"), nb::arg("absolute"), nb::arg("threads"),
      nb::arg("warm_columns").none(), nb::arg("row_duals").none(), nb::arg("column_duals").none(),
      nb::arg("instruction_set").none());

  m.def(
      "solve_row_wise",
      [](const Scores& scores, const Mask& mask, int keep, int block, bool absolute, int threads,
         const std::optional<std::string>& instruction_set) {
        const MaskProblem p = problem_of(scores, mask, keep, block, absolute);
        const Kernels* kernels = kernels_named(instruction_set);
        const nb::gil_scoped_release released;
        return solve_row_wise(p, threads, kernels);
      },
      nb::arg("scores"), nb::arg("mask"), nb::arg("keep"), nb::arg("block"), nb::arg("absolute"), nb::arg("threads"),
      nb::arg("instruction_set").none());

  m.def(
      "solve_unstructured",
      [](const Scores& scores, const Mask& mask, std::int64_t kept, bool absolute, int threads) {
        const MaskProblem p = problem_of(scores, mask, 1, 2, absolute);
        if (kept < 0 || kept > p.batch * p.rows * p.cols) throw std::invalid_argument("kept out of range");
        const nb::gil_scoped_release released;
        return solve_unstructured(p, kept, threads);
      },
      nb::arg("scores"), nb::arg("mask"), nb::arg("kept"), nb::arg("absolute"), nb::arg("threads"));

  bind_packed(m);
  bind_sparse(m);
}
