// Products with sparse matrices: cut the batch into panels, divide the rows by their non-zeros over threads.
#include <algorithm>
#include <type_traits>

#include "activations.hpp"
#include "sparse.hpp"
#include "team.hpp"

namespace bisparse {
namespace {

constexpr double kThreadMicroseconds = 10.0;        // work that pays for one more thread of a waiting team
constexpr std::int64_t kPanelBytes = 1 << 20;       // of a panel that stays in the second cache
constexpr std::int64_t kFeaturesInChunk = 256, kEntriesInChunk = 1 << 14;
constexpr int kLaneCounts[] = {64, 32, 16, 8, 4, 1};

// The most entries of the batch side by side: products gain from a panel that stays in the cache, dots more from long lines.
int widest(std::int64_t width, std::int64_t bytes) {
  int lanes = kMostLanes;
  while (lanes > 16 && width * lanes * bytes > kPanelBytes) lanes /= 2;
  return lanes;
}

// How many lie side by side in the next panel. A panel that is half empty costs as much as a full one.
int lanes_for(std::int64_t left, int most) {
  int lanes = most;
  for (const int fewer : kLaneCounts)
    if (fewer < lanes && left <= (fewer > 4 ? fewer + fewer / 2 : fewer)) lanes = fewer;
  return lanes;
}

int useful_threads(std::int64_t operations, int threads) {
  return std::clamp(static_cast<int>(static_cast<double>(operations) / 32e3 / kThreadMicroseconds), 1, std::max(1, threads));
}

// Calls body(entry) for all entries.
template <class Body>
void for_entries(std::int64_t entries, int threads, Body body) {
  const std::int64_t chunks = (entries + kEntriesInChunk - 1) / kEntriesInChunk;
  for_each_chunk_in_team(chunks, useful_threads(entries * 16, threads), [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(entries, (chunk + 1) * kEntriesInChunk);
    for (std::int64_t k = chunk * kEntriesInChunk; k < end; ++k) body(k);
  });
}

// Numbers as T: where they are, or in scratch.
template <class T>
class Converted {
 public:
  Converted(const Activations& from, std::int64_t count)
      : scratch_(from.data && from.dtype == Dtype::bf16 ? count : 0), data_(static_cast<const T*>(from.data)) {
    if constexpr (std::is_same_v<T, float>)
      if (from.data && from.dtype == Dtype::bf16) {
        to_float({from.data, from.dtype, 0}, count, scratch_.get());
        data_ = scratch_.get();
      }
  }
  const T* get() const { return data_; }

 private:
  Scratch<T> scratch_;
  const T* data_;
};

// Calls body(first row, rows) for stretches of rows, whole groups of kSparseRows, with about equally many entries each.
template <class Body>
void for_rows(const SparseOrder& order, int threads, Body body) {
  const std::int64_t groups = (order.rows + kSparseRows - 1) / kSparseRows;
  const std::int64_t chunks = std::min<std::int64_t>(threads == 1 ? 1 : 8 * threads, groups);
  const auto cost_before = [&](std::int64_t group) {  // a row costs about as much as four entries
    const std::int64_t row = std::min(group * kSparseRows, order.rows);
    return order.starts[row] + 4 * row;
  };
  const auto begin = [&](std::int64_t chunk) {  // the first group with at least this share of the cost before it
    const std::int64_t wanted = cost_before(groups) / chunks * chunk;
    std::int64_t low = 0, high = groups;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (cost_before(middle) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  for_each_chunk_in_team(chunks, threads, [&](std::int64_t chunk, int) {
    const std::int64_t first = begin(chunk) * kSparseRows;
    const std::int64_t end = chunk + 1 == chunks ? order.rows : std::min(begin(chunk + 1) * kSparseRows, order.rows);
    if (first < end) body(first, end - first);
  });
}

void fill(const PanelTask& task, int threads, const SparseKernels& kernels) {
  const std::int64_t chunks = (task.features + kFeaturesInChunk - 1) / kFeaturesInChunk;
  for_each_chunk_in_team(chunks, useful_threads(task.features * task.lanes * 4, threads), [&](std::int64_t chunk, int) {
    const std::int64_t first = chunk * kFeaturesInChunk;
    kernels.fill(task, first, std::min(kFeaturesInChunk, task.features - first));
  });
}

const void* moved(const Activations& from, std::int64_t elements) {
  const std::int64_t bytes = from.dtype == Dtype::f64 ? 8 : from.dtype == Dtype::f32 ? 4 : 2;
  return from.data == nullptr ? nullptr : static_cast<const char*>(from.data) + elements * bytes;
}

// Calls complete(task, first batch entry) for every panel of a batch, then runs the task.
template <class T, class Complete>
void for_panels(const SparseOrder& order, const Activations& input, std::int64_t batch, int most, int threads,
                const SparseKernels& kernels, Complete complete) {
  const Scratch<T> panel(order.width * lanes_for(batch, most));
  std::int64_t here;
  for (std::int64_t first = 0; first < batch; first += here) {
    const int lanes = lanes_for(batch - first, most);
    here = std::min<std::int64_t>(lanes, batch - first);
    fill({moved(input, first * order.width), input.dtype, order.width, here, lanes, panel.get()}, threads, kernels);
    PassTask task{};
    task.order = order, task.wide = sizeof(T) == 8, task.panel = panel.get(), task.lanes = lanes, task.batch = here;
    complete(task, first);
    for_rows(order, useful_threads((order.starts[order.rows] + 4 * order.rows) * lanes, threads),
             [&](std::int64_t row, std::int64_t count) { kernels.pass(task, row, count); });
  }
}

template <class T>
void run_product(const SparseProduct& p, int threads, const SparseKernels& kernels) {
  const SparseOrder& order = p.order;
  const std::int64_t entries = order.starts[order.rows];
  const Converted<T> given(p.values, entries), bias(p.bias, order.rows);
  const Scratch<T> ordered(order.perm ? entries : 0);
  if (order.perm) for_entries(entries, threads, [&](std::int64_t k) { ordered.get()[k] = given.get()[order.perm[k]]; });
  for_panels<T>(order, p.input, p.batch, widest(order.width, sizeof(T)), threads, kernels, [&](PassTask& task, std::int64_t first) {
    task.values = order.perm ? ordered.get() : given.get(), task.bias = bias.get();
    task.output = const_cast<void*>(moved({p.output, p.input.dtype}, first * order.rows)), task.dtype = p.input.dtype;
  });
}

template <class T>
void run_gradient(const SparseGradient& g, int threads, const SparseKernels& kernels) {
  if (g.batch == 0) std::fill_n(static_cast<T*>(g.gradient), g.order.starts[g.order.rows], T(0));
  for_panels<T>(g.order, g.input, g.batch, kMostLanes, threads, kernels, [&](PassTask& task, std::int64_t first) {
    task.own = moved(g.own, first * g.order.rows), task.dtype = g.own.dtype;
    task.gradient = g.gradient, task.add = first > 0;
  });
}

}  // namespace

std::vector<const SparseKernels*> available_sparse() {
  std::vector<const SparseKernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    found.push_back(avx512_sparse());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(avx2_sparse());
#endif
  found.push_back(portable_sparse());
  return found;
}

void sparse_product(const SparseProduct& product, int threads, const SparseKernels* kernels) {
  if (kernels == nullptr) kernels = available_sparse().front();
  (product.values.dtype == Dtype::f64 ? run_product<double> : run_product<float>)(product, threads, *kernels);
}

void sparse_order_by_columns(const SparseOrder& by_rows, std::int32_t* starts, std::int32_t* places, std::int32_t* perm) {
  const std::int64_t width = by_rows.width;
  std::fill_n(starts, width + 1, 0);
  for (std::int64_t k = 0; k < by_rows.starts[by_rows.rows]; ++k) ++starts[by_rows.places[k] + 1];
  for (std::int64_t c = 0; c < width; ++c) starts[c + 1] += starts[c];
  for (std::int64_t row = 0; row < by_rows.rows; ++row)
    for (std::int32_t k = by_rows.starts[row]; k < by_rows.starts[row + 1]; ++k) {
      const std::int32_t to = starts[by_rows.places[k]]++;
      places[to] = static_cast<std::int32_t>(row), perm[to] = k;
    }
  std::copy_backward(starts, starts + width, starts + width + 1);  // each column's end is the next one's start
  starts[0] = 0;
}

void sparse_gradient(const SparseGradient& task, int threads, const SparseKernels* kernels) {
  if (kernels == nullptr) kernels = available_sparse().front();
  (task.input.dtype == Dtype::f64 ? run_gradient<double> : run_gradient<float>)(task, threads, *kernels);
}

}  // namespace bisparse
