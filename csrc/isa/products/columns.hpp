// x = W^T y: a group of rows at a time, few enough for the memory's prefetchers to follow each. For a few columns, the sums
// over the group stay in registers; what is added to the results in the cache is one sum per group.

template <class T>
struct RowGroup {
  Weights<T> weights[kColumnRows];
  const std::uint8_t* index[kColumnRows];
  float scale[kColumnRows][kBatchAtOnce];
  int rows;

  RowGroup(const ColumnsTask& task, std::int64_t row, std::int64_t end, std::int64_t first_step, std::int64_t batch, int size) {
    rows = static_cast<int>(at_most(kColumnRows, end - row));
    const std::int64_t before = task.matrix.view.slots_before(first_step * kStep);
    for (int r = 0; r < rows; ++r) {
      weights[r].values = values_of<T>(task.matrix, row + r) + before;
      index[r] = index_of(task.matrix.view, row + r) + first_step * (kStep / 8);
      for (int b = 0; b < size; ++b) scale[r][b] = task.y[(batch + b) * task.y_stride + row + r];
    }
  }
};

// Adds the group's multiples to Steps * Parts vectors of columns of each batch entry, from part `first` of the steps on.
template <int Steps, int Parts, int Batch, class Group>
static inline void add_rows(Group& group, float* x, int first) {
  Vec sums[Batch][Steps * Parts];
#pragma GCC unroll 16
  for (int b = 0; b < Batch; ++b)
#pragma GCC unroll 8
    for (int p = 0; p < Steps * Parts; ++p) sums[b][p] = load(x + (p / Parts * Batch + b) * kStep + (first + p % Parts) * kLanes);
  for (int r = 0; r < group.rows; ++r) {
    Vec w[Steps * Parts];
#pragma GCC unroll 8
    for (int p = 0; p < Steps * Parts; ++p) {
      if (first + p % Parts == 0) {
        group.weights[r].begin(mask_at(group.index[r]));
        group.index[r] += kStep / 8;
      }
      w[p] = group.weights[r].part(first + p % Parts);
    }
#pragma GCC unroll 16
    for (int b = 0; b < Batch; ++b) {
      Vec scale = splat(group.scale[r][b]);
      if constexpr (Steps * Parts > 1) hold(scale);
#pragma GCC unroll 8
      for (int p = 0; p < Steps * Parts; ++p) sums[b][p] = fma(w[p], scale, sums[b][p]);
    }
  }
#pragma GCC unroll 16
  for (int b = 0; b < Batch; ++b)
#pragma GCC unroll 8
    for (int p = 0; p < Steps * Parts; ++p) store(x + (p / Parts * Batch + b) * kStep + (first + p % Parts) * kLanes, sums[b][p]);
}

template <class T, int Batch>
static void add_group(const ColumnsTask& task, std::int64_t row, std::int64_t end_row, std::int64_t batch,
                      std::int64_t first_step, std::int64_t end_step) {
  constexpr int parts = parts_at_once(Batch) < kParts ? parts_at_once(Batch) : kParts;
  constexpr int steps = parts_at_once(Batch) / parts;
  RowGroup<T> group(task, row, end_row, first_step, batch, Batch);
  float* x = task.x + (batch * task.matrix.view.steps() + first_step * Batch) * kStep;
  std::int64_t step = first_step;
  for (; step + steps <= end_step; step += steps, x += steps * Batch * kStep)
#pragma GCC unroll 8
    for (int first = 0; first < kParts; first += parts) add_rows<steps, parts, Batch>(group, x, first);
  if constexpr (steps > 1)
    for (; step < end_step; ++step, x += Batch * kStep) add_rows<1, kParts, Batch>(group, x, 0);
}

static void multiply_columns(const ColumnsTask& task, std::int64_t first_row, std::int64_t rows, std::int64_t first_step,
                             std::int64_t steps) {
  const std::int64_t end_step = first_step + steps, end_row = first_row + rows;
  for_batches(task.batch, [&]<int Batch>(std::int64_t batch) {
    float* x = task.x + (batch * task.matrix.view.steps() + first_step * Batch) * kStep;
    __builtin_memset(x, 0, static_cast<std::size_t>(steps * Batch * kStep) * sizeof(float));
  });
  for_dtype(task.matrix.view.dtype, [&]<class T>() {
    for (std::int64_t row = first_row; row < end_row; row += kColumnRows)
      for_batches(task.batch, [&]<int Batch>(std::int64_t batch) {
        add_group<T, Batch>(task, row, end_row, batch, first_step, end_step);
      });
  });
}
