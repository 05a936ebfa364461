// Entry points of the core: choose an instruction set, split the work over threads, add up the answers.
#pragma once

#include <string>
#include <vector>

#include "mask_problem.hpp"

namespace bisparse {

// The instruction sets this machine can run, widest first.
std::vector<const Kernels*> available_kernels();

// `kernels` may be null: the widest available. The answer's bits depend on neither `threads` nor `kernels`.
MaskAnswer solve_transposable(const MaskProblem& problem, int threads, const Kernels* kernels);
MaskAnswer solve_row_wise(const MaskProblem& problem, int threads, const Kernels* kernels);

// Keeps the `kept` largest of all entries; ties go to the lower index.
MaskAnswer solve_unstructured(const MaskProblem& problem, std::int64_t kept, int threads);

}  // namespace bisparse
