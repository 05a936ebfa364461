#include "dispatch.hpp"

#include <algorithm>
#include <memory>
#include <new>

#include "parallel.hpp"

namespace bisparse {
namespace {

using Run = void (*)(const MaskProblem&, std::int64_t, std::int64_t, void*, MaskAnswer&);

// Starting a thread costs some 20 us: below about 200 us of work, one is faster.
int useful_threads(std::int64_t entries, double nanoseconds_each, int threads) {
  const double microseconds = static_cast<double>(entries) * nanoseconds_each * 1e-3;
  return std::max(1, std::min(threads, static_cast<int>(microseconds / 200.0)));
}

struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};
using Scratch = std::unique_ptr<void, AlignedDelete>;

MaskAnswer run_chunks(const MaskProblem& problem, const Kernels& kernels, Run run, std::int64_t items,
                      std::int64_t per_chunk, int threads) {
  const std::int64_t chunks = (items + per_chunk - 1) / per_chunk;
  std::vector<MaskAnswer> answers(static_cast<std::size_t>(chunks));
  std::vector<Scratch> scratch(static_cast<std::size_t>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, chunks))));
  for (Scratch& s : scratch) s.reset(::operator new(static_cast<std::size_t>(kernels.scratch_bytes), std::align_val_t{64}));
  for_each_chunk(chunks, threads, [&](std::int64_t chunk, int worker) {
    const std::int64_t first = chunk * per_chunk;
    run(problem, first, std::min(per_chunk, items - first), scratch[static_cast<std::size_t>(worker)].get(),
        answers[static_cast<std::size_t>(chunk)]);
  });
  MaskAnswer total;
  for (const MaskAnswer& part : answers) {
    total.objective += part.objective;
    total.slack += part.slack;
    total.repaired += part.repaired;
    total.rounds = std::max(total.rounds, part.rounds);
    total.invalid |= part.invalid;
  }
  return total;
}

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    found.push_back(avx512_kernels());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) found.push_back(avx2_kernels());
#endif
  found.push_back(portable_kernels());
  return found;
}

MaskAnswer solve_transposable(const MaskProblem& problem, int threads, const Kernels* kernels) {
  if (kernels == nullptr) kernels = available_kernels().front();
  const std::int64_t tiles = problem.tiles();
  const double nanoseconds = 0.5 + 0.2 * problem.block;
  threads = useful_threads(tiles * problem.block * problem.block, nanoseconds, threads);
  const std::int64_t per_chunk = std::clamp<std::int64_t>((1 << 15) / (problem.block * problem.block), 64, kChunkTiles);
  return run_chunks(problem, *kernels, kernels->solve_tiles, tiles, per_chunk, threads);
}

MaskAnswer solve_row_wise(const MaskProblem& problem, int threads, const Kernels* kernels) {
  if (kernels == nullptr) kernels = available_kernels().front();
  const std::int64_t rows = problem.batch * problem.rows;
  threads = useful_threads(rows * problem.cols, 1.0, threads);
  const std::int64_t per_chunk = std::max<std::int64_t>(1, (1 << 15) / std::max<std::int64_t>(1, problem.cols));
  return run_chunks(problem, *kernels, kernels->solve_rows, rows, per_chunk, threads);
}

}  // namespace bisparse
